// Codes of vectors, once per SIMD level, the same at every level. See recall/vector_codes.h for what they mean.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace springtide {

// What `encode` finds beside the codes.
struct CodedVector {
    float scale;
    int32_t upper_squares, lower_squares;  // sums of the squared codes
};

struct VectorCodeKernels {
    // Whether every component of `vector`, [width], is finite and at most kMaxComponent. Every width below is a
    // multiple of 16, at most 512.
    bool (*codable)(const float* vector, size_t width);
    // Writes the codes of a codable vector to upper and lower, [width] each.
    CodedVector (*encode)(const float* vector, size_t width, int8_t* upper, int8_t* lower);
    // out[i] = sum over d of rows[i][d] * words[d].
    void (*products)(const int8_t* const* rows, size_t n, const int16_t* words, size_t width, int32_t* out);
};

const VectorCodeKernels& vector_code_kernels(simd::Portable);
const VectorCodeKernels& vector_code_kernels(simd::Avx2);
const VectorCodeKernels& vector_code_kernels(simd::Avx512);

constexpr float kMaxComponent = 0x1p40f;   // products of two vectors stay far inside the range of floats
constexpr float kLeastMaximum = 0x1p-40f;  // and far from its smallest normal number: lesser vectors count as zero
constexpr float kLargestCode = 127 * 256;

}  // namespace springtide
