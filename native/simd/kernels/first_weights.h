// The initial weights of a row from its start value, see table/initializer.h. The same bits at every level.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace springtide {

// weights[i] = scale * u(start + (i + 1) * golden), u in (-1, 1), for i < dim.
void first_weights(simd::Portable, uint64_t start, float scale, float* weights, size_t dim);
void first_weights(simd::Avx2, uint64_t start, float scale, float* weights, size_t dim);
void first_weights(simd::Avx512, uint64_t start, float scale, float* weights, size_t dim);

}  // namespace springtide
