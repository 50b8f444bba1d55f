// XXH64, the one hash function here: keys of feature values, shard choice, content digests.
//
// Written from the published description of the algorithm (github.com/Cyan4973/xxHash, doc/xxhash_spec.md); its values
// are part of every stored format, so they never change. Pure functions, safe from any thread, no allocation.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace freshet {

static_assert(std::endian::native == std::endian::little, "formats are little-endian, and so must be the machine");

namespace xxh64_constant {
inline constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
inline constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
inline constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
inline constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
inline constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;
}  // namespace xxh64_constant

// XXH64 of bytes[0..n). `bytes` may be null where n is 0, and need not be aligned.
uint64_t xxh64(const void* bytes, size_t n, uint64_t seed);

// XXH64 of the eight little-endian bytes of `word`: equal to xxh64(&word, 8, seed), without the call.
inline uint64_t xxh64_word(uint64_t word, uint64_t seed) {
    using namespace xxh64_constant;
    uint64_t hash = seed + kPrime5 + sizeof(word);
    hash ^= std::rotl(word * kPrime2, 31) * kPrime1;
    hash = std::rotl(hash, 27) * kPrime1 + kPrime4;
    hash = (hash ^ (hash >> 33)) * kPrime2;
    hash = (hash ^ (hash >> 29)) * kPrime3;
    return hash ^ (hash >> 32);
}

}  // namespace freshet
