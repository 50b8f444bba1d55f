#include "keys/xxh64.h"

#include <cstring>

#include "simd/kernels/hash_words.h"

namespace springtide {
namespace {

using namespace xxh64_constant;

template <typename Word>
Word load(const unsigned char* at) {
    Word word;
    std::memcpy(&word, at, sizeof(word));  // compiles to one unaligned load
    return word;
}

uint64_t round_of(uint64_t lane, uint64_t word) { return std::rotl(lane + word * kPrime2, 31) * kPrime1; }

uint64_t merge(uint64_t hash, uint64_t lane) { return (hash ^ round_of(0, lane)) * kPrime1 + kPrime4; }

// Hashes all complete stripes of 32 bytes in four lanes and advances `at` past them.
uint64_t hash_stripes(const unsigned char*& at, const unsigned char* end, uint64_t seed) {
    uint64_t lanes[4] = {seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1};
    for (; end - at >= 32; at += 32)
        for (int i = 0; i < 4; ++i) lanes[i] = round_of(lanes[i], load<uint64_t>(at + 8 * i));
    uint64_t hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
    for (uint64_t lane : lanes) hash = merge(hash, lane);
    return hash;
}

uint64_t avalanche(uint64_t hash) {
    hash = (hash ^ (hash >> 33)) * kPrime2;
    hash = (hash ^ (hash >> 29)) * kPrime3;
    return hash ^ (hash >> 32);
}

}  // namespace

uint64_t xxh64(const void* bytes, size_t n, uint64_t seed) {
    if (n == 0) return avalanche(seed + kPrime5);
    const auto* at = static_cast<const unsigned char*>(bytes);
    const unsigned char* end = at + n;
    uint64_t hash = (n >= 32 ? hash_stripes(at, end, seed) : seed + kPrime5) + n;
    for (; end - at >= 8; at += 8)
        hash = std::rotl(hash ^ round_of(0, load<uint64_t>(at)), 27) * kPrime1 + kPrime4;
    if (end - at >= 4) {
        hash = std::rotl(hash ^ (load<uint32_t>(at) * kPrime1), 23) * kPrime2 + kPrime3;
        at += 4;
    }
    for (; at < end; ++at) hash = std::rotl(hash ^ (*at * kPrime5), 11) * kPrime1;
    return avalanche(hash);
}

void xxh64_words(const uint64_t* words, size_t n, uint64_t seed, uint64_t* out) {
    simd::at_level([=](auto level) { hash_words(level, words, n, seed, out); });
}

}  // namespace springtide
