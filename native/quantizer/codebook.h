// Quantised rows whose grids come from a table of at most 256, so that a row needs one byte instead of four for scale
// and offset: 9 bytes instead of 12 at dim 16 and 4 bits.
//
// After the two-tier codebooks (KMEANS-CLS) of Guan et al., "Post-Training 4-bit Quantization on Embedding Tables"
// (2019): rows are clustered and a cluster shares one codebook. Here a codebook is a uniform grid, as in quantizer.h,
// so decoding is still one multiplication and one addition. With 256 entries the error of normally distributed rows
// grows by 2 % at 2 bits and 14 % at 4; at 8 bits it is five times as large, rarely worth three bytes. Little-endian:
//
//   0   bits u8: 2, 4 or 8
//   1   entries - 1, u8
//   2   dim - 1, u16
//   4   rows n, u32
//   8   entries x (scale f16, offset f16), finite, scales not negative
//   .   n x the row's entry, u8
//   .   n x (dim * bits + 7) / 8 bytes of codes, first code lowest, unused bits zero
//
// Pure functions, thread-safe. The same rows give the same bytes on any machine; the bytes of a row depend on the other
// rows. Throws std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

// The header of a codebook.
struct CodebookShape {
    unsigned bits;
    size_t entries, dim, rows;
};

// Requires bits 2, 4 or 8; 1 <= entries <= 256; 1 <= dim <= 65536; n < 2^32; finite rows. Writes at most n entries.
// Costs an encoding of all rows, then about `entries` times a few operations per row.
std::vector<uint8_t> encode_codebook(const float* rows, size_t n, size_t dim, unsigned bits, size_t entries);

// Reads the header of untrusted bytes and checks everything that decoding relies on. Returns null and fills `shape`, or
// returns a description of the defect, a static string.
const char* check_codebook(const uint8_t* bytes, size_t length, CodebookShape& shape);

// Requires bytes that passed check_codebook(). Writes shape.rows x shape.dim floats.
void decode_codebook(const uint8_t* bytes, const CodebookShape& shape, float* rows);

}  // namespace springtide
