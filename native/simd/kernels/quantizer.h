// What quantizer.cc does row for row, once per SIMD level. See simd.h for how levels work.
//
// Rows are fitted and written `lanes` at a time, one per lane of a register: every row is added up in the order of its
// weights, whatever the width, and gets the same bytes. They are handed over turned: columns[i * lanes + r] is weight i
// of row r. A grid is one word, the half of the scale below and that of the offset above, as in a payload.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace springtide {

// For codes of one width.
struct CodeKernels {
    // The grid for each of `lanes` turned rows.
    void (*fit)(const float* columns, size_t dim, uint32_t* grids);
    // Their codes on such grids, each row's to a place of its own.
    void (*write)(const float* columns, size_t dim, const uint32_t* grids, uint8_t* const* codes);
    // Which of `count` grids leaves each row the least squared error; the first of several.
    void (*choose)(const float* columns, size_t dim, const uint32_t* grids, size_t count, uint32_t* chosen);
    // The row that codes on a grid stand for.
    void (*read)(const uint8_t* codes, size_t dim, uint32_t grid, float* row);
    // n payloads of a grid and its codes, one after the other, as rows.
    void (*read_all)(const uint8_t* payloads, size_t n, size_t dim, float* rows);
};

struct QuantizerKernels {
    size_t lanes;  // at most 16
    // `lanes` rows, turned. Weights further out than any grid are brought back to where none reaches.
    void (*turn)(const float* const* rows, size_t dim, float* columns);
    CodeKernels two_bits, four_bits, eight_bits;
    // n floats as n halves or bfloats of two bytes each, and back.
    void (*to_halves)(const float* values, size_t n, uint8_t* halves);
    void (*from_halves)(const uint8_t* halves, size_t n, float* values);
    void (*to_bfloats)(const float* values, size_t n, uint8_t* bfloats);
    void (*from_bfloats)(const uint8_t* bfloats, size_t n, float* values);
};

const QuantizerKernels& quantizer_kernels(simd::Portable);
const QuantizerKernels& quantizer_kernels(simd::Avx2);
const QuantizerKernels& quantizer_kernels(simd::Avx512);

}  // namespace springtide
