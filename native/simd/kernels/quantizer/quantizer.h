// The per-row work of quantizer/quantizer.cc, once per SIMD level. See simd/simd.h for levels.
//
// Rows are fitted and written `lanes` at a time, one per lane of a register: sums over a row run in the order of its
// weights at every register width, so a row gets the same bytes at every level. Rows are passed transposed:
// columns[i * lanes + r] is weight i of row r. A grid is one word as in a payload: scale (f16) in the lower half,
// offset (f16) in the upper half.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace springtide {

// Kernels for codes of one width.
struct CodeKernels {
    // Fits a grid to each of `lanes` transposed rows.
    void (*fit)(const float* columns, size_t dim, uint32_t* grids);
    // Writes the codes of row r on grids[r] to codes[r].
    void (*write)(const float* columns, size_t dim, const uint32_t* grids, uint8_t* const* codes);
    // chosen[r]: index of the grid, of `count`, with the least squared error for row r; the first one of a tie.
    void (*choose)(const float* columns, size_t dim, const uint32_t* grids, size_t count, uint32_t* chosen);
    // Decodes one row from its codes.
    void (*read)(const uint8_t* codes, size_t dim, uint32_t grid, float* row);
    // Decodes n consecutive payloads, each a grid and its codes.
    void (*read_all)(const uint8_t* payloads, size_t n, size_t dim, float* rows);
};

struct QuantizerKernels {
    size_t lanes;  // at most 16
    // Transposes `lanes` rows. Weights far outside the range of any grid are clamped to a value still outside.
    void (*transpose)(const float* const* rows, size_t dim, float* columns);
    CodeKernels two_bits, four_bits, eight_bits;
    // Converts n floats to n halves or bfloats of two bytes each, and back.
    void (*to_halves)(const float* values, size_t n, uint8_t* halves);
    void (*from_halves)(const uint8_t* halves, size_t n, float* values);
    void (*to_bfloats)(const float* values, size_t n, uint8_t* bfloats);
    void (*from_bfloats)(const uint8_t* bfloats, size_t n, float* values);
};

const QuantizerKernels& quantizer_kernels(simd::Portable);
const QuantizerKernels& quantizer_kernels(simd::Avx2);
const QuantizerKernels& quantizer_kernels(simd::Avx512);

}  // namespace springtide
