// What quantizer.cc does row for row, once per SIMD level. See simd.h for how levels work.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace freshet {

struct QuantizerKernels {
    // n floats as n halves or bfloats of two bytes each, and back.
    void (*to_halves)(const float* values, size_t n, uint8_t* halves);
    void (*from_halves)(const uint8_t* halves, size_t n, float* values);
    void (*to_bfloats)(const float* values, size_t n, uint8_t* bfloats);
    void (*from_bfloats)(const uint8_t* bfloats, size_t n, float* values);
};

const QuantizerKernels& quantizer_kernels(simd::Portable);
const QuantizerKernels& quantizer_kernels(simd::Avx2);
const QuantizerKernels& quantizer_kernels(simd::Avx512);

}  // namespace freshet
