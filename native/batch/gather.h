// Rows picked from several arrays of Arrow's layout and laid side by side in a new one, in one pass and without a join of
// the arrays before.
//
// A place names a row: chunk << 32 | row. Callers check places once with places_fit(); everything else trusts them, and
// trusts nothing inside the arrays: offsets that leave their text give false. Pure functions, safe from any thread,
// linear time; what is returned as false leaves the output unspecified.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace springtide {

// One chunk of a column of bits, validity or booleans: bit `row` is at `offset + row`. No bytes: every bit is 1.
struct Bits {
    const uint8_t* bytes;
    size_t offset;
};

// One chunk of a column of texts or lists: n rows have n + 1 offsets, into `bytes` bytes of text or so many values.
struct Ranges {
    const int32_t* offsets;
    const uint8_t* text;
    size_t bytes;
};

// Whether every place names a row of a chunk: chunk c has rows[c] rows.
bool places_fit(std::span<const uint64_t> places, std::span<const uint64_t> rows);

// out[i] = the word at places[i]; Word is uint8_t, uint32_t or uint64_t.
template <typename Word>
void gather_words(std::span<const uint64_t> places, const Word* const* chunks, Word* out);

// Bit i of `out` = the bit at places[i]; the last byte is filled with zeros. Returns how many bits are 0.
size_t gather_bits(std::span<const uint64_t> places, const Bits* chunks, uint8_t* out);

// out[0] = 0, out[i + 1] = out[i] + the length of the row at places[i]. False where lengths leave a chunk's text or
// their sum leaves int32.
bool gather_offsets(std::span<const uint64_t> places, const Ranges* chunks, int32_t* out);

// The texts at the places one after the other: `offsets` is what gather_offsets() gave for the same places.
void gather_texts(std::span<const uint64_t> places, const Ranges* chunks, const int32_t* offsets, uint8_t* out);

// The places of the values in the lists at the places: so many as gather_offsets() said last.
void gather_members(std::span<const uint64_t> places, const Ranges* chunks, uint64_t* out);

}  // namespace springtide
