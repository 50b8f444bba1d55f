// Rows in codes of few bits whose grids come from a table of at most 256, so that a row pays one byte for scale and
// offset instead of four: 9 bytes instead of 12 at dim 16 and 4 bits.
//
// After the two-tier codebooks (KMEANS-CLS) of Guan et al., "Post-Training 4-bit Quantization on Embedding Tables"
// (2019): rows are clustered and a cluster shares one codebook. Here a codebook is a uniform grid, as in quantizer.h,
// so that decoding stays one multiplication and one addition. With 256 entries the error of normal rows grows by 2 % at
// 2 bits and 14 % at 4; at 8 bits it is five times as large, which three bytes are seldom worth. Little-endian:
//
//   0   bits u8: 2, 4 or 8
//   1   entries - 1, u8
//   2   dim - 1, u16
//   4   rows n, u32
//   8   entries x (scale f16, offset f16), finite, scales not negative
//   .   n x the row's entry, u8
//   .   n x (dim * bits + 7) / 8 bytes of codes, the first lowest, what is left over zero
//
// Pure functions, safe from any thread. The same rows give the same bytes on any machine; a row's bytes depend on its
// neighbours. std::bad_alloc where memory is short.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

constexpr size_t kMostCodebookEntries = 256;

// What a codebook's header says.
struct CodebookShape {
    unsigned bits;
    size_t entries, dim, rows;
};

// Wants bits 2, 4 or 8; 1 <= entries <= 256; 1 <= dim <= 65536; n < 2^32; finite rows. Fewer entries are written where
// there are fewer rows. Costs an encoding of all rows, then about `entries` times a few operations per row.
std::vector<uint8_t> encode_codebook(const float* rows, size_t n, size_t dim, unsigned bits, size_t entries);

// Reads the header of untrusted bytes and checks everything that decoding relies on. Returns null and fills `shape`, or
// what is wrong, as a static string.
const char* check_codebook(const uint8_t* bytes, size_t length, CodebookShape& shape);

// Wants bytes that were checked. Writes shape.rows x shape.dim floats.
void decode_codebook(const uint8_t* bytes, const CodebookShape& shape, float* rows);

}  // namespace springtide
