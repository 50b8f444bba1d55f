#include "simd/kernels/first_weights.h"

namespace springtide {
namespace {

// SplitMix64's output function (Steele, Lea and Flood, OOPSLA 2014): neighbouring inputs give unrelated outputs.
inline uint64_t scramble(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

}  // namespace

// Auto-vectorised: AVX-512 multiplies eight 64-bit words at once.
void first_weights(simd::ThisLevel, uint64_t start, float scale, float* weights, size_t dim) {
    for (size_t i = 0; i < dim; ++i) {
        const uint64_t bits = scramble(start + (i + 1) * 0x9E3779B97F4A7C15) >> 40;
        // The 2^24 odd multiples of 2^-24 in (-1, 1): symmetric, exact in float, never 0.
        const int32_t odd = static_cast<int32_t>(2 * bits + 1) - (1 << 24);
        weights[i] = scale * (static_cast<float>(odd) * 0x1p-24f);
    }
}

}  // namespace springtide
