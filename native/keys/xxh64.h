// XXH64, the hash function of feature keys, shard selection and content digests.
//
// Written from the specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). Its values are part of every stored
// format and must never change. Pure functions, thread-safe, no allocation.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "simd/kernels/xxh64_primes.h"

namespace springtide {

static_assert(std::endian::native == std::endian::little, "stored formats require a little-endian machine");

// XXH64 of bytes[0..n). `bytes` may be null if n is 0; no alignment is required.
uint64_t xxh64(const void* bytes, size_t n, uint64_t seed);

// XXH64 of the eight little-endian bytes of `word`: equal to xxh64(&word, 8, seed), but inline.
inline uint64_t xxh64_word(uint64_t word, uint64_t seed) {
    using namespace xxh64_constant;
    uint64_t hash = seed + kPrime5 + sizeof(word);
    hash ^= std::rotl(word * kPrime2, 31) * kPrime1;
    hash = std::rotl(hash, 27) * kPrime1 + kPrime4;
    hash = (hash ^ (hash >> 33)) * kPrime2;
    hash = (hash ^ (hash >> 29)) * kPrime3;
    return hash ^ (hash >> 32);
}

// out[i] = xxh64_word(words[i], seed), vectorised if the SIMD level allows. `out` may be `words`.
void xxh64_words(const uint64_t* words, size_t n, uint64_t seed, uint64_t* out);

}  // namespace springtide
