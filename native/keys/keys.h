// Feature values to keys: XXH64 over the buffers of Arrow columns.
//
// Pure functions over the caller's memory: thread-safe, no allocation, linear cost. All outputs are written. The values
// are part of every stored format and must never change. A null hashes to `null_key(seed)`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

// Arrow's validity bitmap: row i is valid if bit `offset + i` is set; all rows are valid if `bits` is null.
struct Validity {
    const uint8_t* bits;
    int64_t offset;

    bool operator()(size_t row) const {
        const uint64_t at = static_cast<uint64_t>(offset) + row;
        return bits == nullptr || ((bits[at >> 3] >> (at & 7)) & 1) != 0;
    }
};

// The key of a null; different for each seed.
uint64_t null_key(uint64_t seed);

// Strings or binary: row i is text[offsets[i]..offsets[i + 1]). `offsets` has n + 1 entries (int32 or int64) and points
// to the first row of the slice. Returns false, with unspecified outputs, if offsets descend or exceed
// text[0..text_bytes).
template <typename Offset>
[[nodiscard]] bool hash_texts(const Offset* offsets, const uint8_t* text, size_t text_bytes, Validity valid, size_t n,
                              uint64_t seed, uint64_t* out);

// 64-bit integers: the hash of the eight little-endian bytes.
void hash_integers(const int64_t* values, Validity valid, size_t n, uint64_t seed, uint64_t* out);

// Doubles: the hash of the eight bytes, with -0.0 replaced by 0.0 and every NaN by the quiet NaN.
void hash_doubles(const double* values, Validity valid, size_t n, uint64_t seed, uint64_t* out);

// Arrow booleans, row i is bit `bit_offset + i` of `bits`: hashed as the integers 0 and 1.
void hash_booleans(const uint8_t* bits, int64_t bit_offset, Validity valid, size_t n, uint64_t seed, uint64_t* out);

// One key per row of keys[n][columns] (C order): the hash of the row's bytes, which depends on the column order.
void combine(const uint64_t* keys, size_t n, size_t columns, uint64_t seed, uint64_t* out);

}  // namespace springtide
