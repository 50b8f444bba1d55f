// Rows in the layouts int2, int4 and int8 of quantizer.h whose grids come from a table of at most 256, so that a column
// with a dictionary stores a grid as one byte instead of four: 9 bytes a row instead of 12 at dim 16 and 4 bits.
//
// After the two-tier codebooks (KMEANS-CLS) of Guan et al., "Post-Training 4-bit Quantization on Embedding Tables"
// (2019): rows are clustered and a cluster shares one codebook. Here a codebook is a uniform grid, as in quantizer.h,
// and decode_rows() reads it. With 256 entries the error of normally distributed rows grows by 2 % at 2 bits and 14 %
// at 4; at 8 bits it is five times as large, rarely worth three bytes.
//
// Pure function, thread-safe. The same rows give the same bytes on any machine; the bytes of a row depend on the other
// rows. Throws std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

// Requires bits 2, 4 or 8; 1 <= entries <= 256; 1 <= dim <= 65536; finite rows; room for n payloads. Of these at most
// `entries` grids differ. Costs an encoding of all rows, then about `entries` times a few operations per row.
void encode_codebook(const float* rows, size_t n, size_t dim, unsigned bits, size_t entries, uint8_t* payloads);

}  // namespace springtide
