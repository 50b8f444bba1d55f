// Gathers rows from the chunks of an Arrow column into one new array, in one pass, without concatenating the chunks.
//
// A place identifies a row: chunk << 32 | row. Callers validate places once with places_fit(); the other functions rely
// on it. The content of the arrays is not trusted: functions return false for offsets outside the text. Pure functions,
// thread-safe, linear time; if false is returned the output is unspecified.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace springtide {

// One chunk of a bit column (validity or booleans): row r is bit `offset + r`. If `bytes` is null, every bit is 1.
struct Bits {
    const uint8_t* bytes;
    size_t offset;
};

// One chunk of a string or list column: n rows have n + 1 offsets into `bytes` bytes of text, or into `bytes` values.
struct Ranges {
    const int32_t* offsets;
    const uint8_t* text;
    size_t bytes;
};

// Whether every place is valid for chunks with rows[c] rows each.
bool places_fit(std::span<const uint64_t> places, std::span<const uint64_t> rows);

// out[i] = the word at places[i]; Word is uint8_t, uint32_t or uint64_t.
template <typename Word>
void gather_words(std::span<const uint64_t> places, const Word* const* chunks, Word* out);

// Bit i of `out` = the bit at places[i]; unused bits of the last byte are 0. Returns the number of places with bit 0.
size_t gather_bits(std::span<const uint64_t> places, const Bits* chunks, uint8_t* out);

// out[0] = 0, out[i + 1] = out[i] + the length of the row at places[i]. Returns false if a row exceeds the text of its
// chunk, or if the total length exceeds int32.
bool gather_offsets(std::span<const uint64_t> places, const Ranges* chunks, int32_t* out);

// The texts at the places, concatenated. `offsets` is the output of gather_offsets() for the same places.
void gather_texts(std::span<const uint64_t> places, const Ranges* chunks, const int32_t* offsets, uint8_t* out);

// The places of all values in the lists at the places. Their number is the last offset of gather_offsets().
void gather_members(std::span<const uint64_t> places, const Ranges* chunks, uint64_t* out);

}  // namespace springtide
