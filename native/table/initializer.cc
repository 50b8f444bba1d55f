#include "table/initializer.h"

#include "keys/xxh64.h"
#include "simd/kernels/first_weights.h"

namespace springtide {

void UniformInitializer::fill(uint64_t key, float* weights, size_t dim) const {
    const uint64_t start = xxh64_word(key, seed_);
    simd::at_level([&](auto level) { first_weights(level, start, scale_, weights, dim); });
}

}  // namespace springtide
