#include "simd/kernels/hash_words.h"

#include "simd/kernels/xxh64_primes.h"

namespace springtide {
namespace {

// Not std::rotl: the linker would keep one copy of it for all levels.
inline uint64_t rotated(uint64_t value, int bits) { return (value << bits) | (value >> (64 - bits)); }

// The same as xxh64_word() in keys/xxh64.h; the tests compare them.
inline uint64_t hash_word(uint64_t word, uint64_t seed) {
    using namespace xxh64_constant;
    uint64_t hash = seed + kPrime5 + sizeof(word);
    hash ^= rotated(word * kPrime2, 31) * kPrime1;
    hash = rotated(hash, 27) * kPrime1 + kPrime4;
    hash = (hash ^ (hash >> 33)) * kPrime2;
    hash = (hash ^ (hash >> 29)) * kPrime3;
    return hash ^ (hash >> 32);
}

}  // namespace

// Auto-vectorised: AVX-512 multiplies eight 64-bit words at once, five times as fast as one at a time; the lower levels
// have no such instruction and gain little.
void hash_words(simd::ThisLevel, const uint64_t* words, size_t n, uint64_t seed, uint64_t* out) {
#pragma GCC ivdep  // `out` may be `words`: element i depends on element i only
    for (size_t i = 0; i < n; ++i) out[i] = hash_word(words[i], seed);
}

}  // namespace springtide
