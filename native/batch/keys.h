// Feature values to keys: XXH64 over Arrow columns, straight from their buffers.
//
// Pure functions over the caller's memory: safe from any thread, no allocation, linear cost. Outputs are written in
// full. The values are part of every stored format. A null hashes to `null_key(seed)`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

// Arrow's validity bitmap: bit `offset + i` says whether row i holds a value; `bits` null means that all do.
struct Validity {
    const uint8_t* bits;
    int64_t offset;

    bool operator()(size_t row) const {
        const uint64_t at = static_cast<uint64_t>(offset) + row;
        return bits == nullptr || ((bits[at >> 3] >> (at & 7)) & 1) != 0;
    }
};

// The key of a missing value, another for each seed.
uint64_t null_key(uint64_t seed);

// Strings or binary: row i is text[offsets[i]..offsets[i + 1]). `offsets` has n + 1 entries (int32 or int64) and is
// already moved to the slice's first row. Returns false, outputs unspecified, where offsets run backwards or leave
// text[0..text_bytes).
template <typename Offset>
[[nodiscard]] bool hash_texts(const Offset* offsets, const uint8_t* text, size_t text_bytes, Validity valid, size_t n,
                              uint64_t seed, uint64_t* out);

// 64-bit integers: the hash of the eight little-endian bytes.
void hash_integers(const int64_t* values, Validity valid, size_t n, uint64_t seed, uint64_t* out);

// Doubles: the hash of the eight bytes, after -0.0 became 0.0 and every NaN the one quiet NaN.
void hash_doubles(const double* values, Validity valid, size_t n, uint64_t seed, uint64_t* out);

// Arrow booleans, bit `bit_offset + i` of `bits`: hashed as the integers 0 and 1.
void hash_booleans(const uint8_t* bits, int64_t bit_offset, Validity valid, size_t n, uint64_t seed, uint64_t* out);

// One key per row of keys[n][columns] (C order): the hash of the row's bytes, so the order of columns matters.
void combine(const uint64_t* keys, size_t n, size_t columns, uint64_t seed, uint64_t* out);

}  // namespace springtide
