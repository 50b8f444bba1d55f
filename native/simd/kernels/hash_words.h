// XXH64 of many eight-byte words, several at a time: xxh64_words() of keys/xxh64.h at each level.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace springtide {

void hash_words(simd::Portable, const uint64_t* words, size_t n, uint64_t seed, uint64_t* out);
void hash_words(simd::Avx2, const uint64_t* words, size_t n, uint64_t seed, uint64_t* out);
void hash_words(simd::Avx512, const uint64_t* words, size_t n, uint64_t seed, uint64_t* out);

}  // namespace springtide
