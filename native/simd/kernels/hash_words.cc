#include "simd/kernels/hash_words.h"

#include "simd/kernels/xxh64_primes.h"

namespace springtide {
namespace {

// Not std::rotl, of which the linker would keep one copy for all levels.
inline uint64_t rotated(uint64_t value, int bits) { return (value << bits) | (value >> (64 - bits)); }

// xxh64_word(): kept alike by the tests.
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

// The compiler's own loop: AVX-512 multiplies eight 64-bit words at once and is five times as fast as one by one; the
// lower levels have no such instruction and little to gain.
void hash_words(simd::ThisLevel, const uint64_t* words, size_t n, uint64_t seed, uint64_t* out) {
#pragma GCC ivdep  // out may be words, element by element
    for (size_t i = 0; i < n; ++i) out[i] = hash_word(words[i], seed);
}

}  // namespace springtide
