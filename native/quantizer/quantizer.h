// The row codec: rows of floats in fewer bits, as sent to serving and stored there.
//
// Pure functions over the caller's memory, thread-safe. Encoding a batch allocates scratch for 16 rows if dim > 64
// (std::bad_alloc), otherwise nothing. A row gives the same bytes on any machine, independent of the other rows of its
// batch. Weights must be finite; any payload bytes decode to some row. Payloads are little-endian and have no header;
// codec and dim are stored elsewhere:
//
//   fp32  dim x f32, unchanged
//   fp16  dim x f16, nearest, ties to even, saturated at +-65504
//   bf16  dim x the upper half of an f32, nearest, ties to even, saturated at the greatest finite bfloat
//   int8  scale f16, offset f16, dim codes of one byte
//   int4  scale f16, offset f16, (dim + 1) / 2 bytes of two codes each, first code lowest, unused bits zero
//   int2  scale f16, offset f16, (dim + 3) / 4 bytes of four codes each, likewise
//   step4, step8, step16  exponent i8, dim integers of one or two bytes, see integers.h
//
// Published rows are step4, step8, step16 or fp32, by precision. In the int codecs a code decodes to offset + scale *
// code in float32: one multiplication and one addition. A scale is never negative.
// int8: the error of a weight within +-65504 is at most half a scale (plus rounding). int4 and int2: scale and offset
// are the candidate with the least squared error, measured on the bytes written, of three: the grid that covers the
// row, and two roundings of the search result. In all three, weights below -65504 decode to -65504.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantizer/integers.h"

namespace springtide {

enum class Codec : uint8_t { int2, int4, int8, bf16, fp16, fp32, step4, step8, step16 };

// The codec of a precision of published rows: 4, 8, 16 or 32.
constexpr Codec codec_of(unsigned bits) {
    return bits == 4 ? Codec::step4 : bits == 8 ? Codec::step8 : bits == 16 ? Codec::step16 : Codec::fp32;
}

// Bytes of the codes alone, and of one row of `dim` weights.
constexpr size_t code_bytes(unsigned bits, size_t dim) { return (dim * bits + 7) / 8; }
constexpr size_t payload_bytes(Codec codec, size_t dim) {
    switch (codec) {
        case Codec::int2: return 4 + code_bytes(2, dim);
        case Codec::int4: return 4 + code_bytes(4, dim);
        case Codec::int8: return 4 + dim;
        case Codec::fp32: return 4 * dim;
        case Codec::step4:
        case Codec::step8: return integer_bytes(8, dim);
        case Codec::step16: return integer_bytes(16, dim);
        default: return 2 * dim;
    }
}
constexpr size_t payload_bytes(unsigned bits, size_t dim) { return payload_bytes(codec_of(bits), dim); }

// All functions require 1 <= dim <= 65536 and take time linear in n * dim; int4 and int2 pass over a row some 20 times.

// n rows of one codec; payloads are consecutive.
void encode_rows(Codec codec, const float* rows, size_t n, size_t dim, uint8_t* payloads);
void decode_rows(Codec codec, const uint8_t* payloads, size_t n, size_t dim, float* rows);

// Row i in precision bits[i], its payload at payload + offsets[i].
void encode_mixed(const float* rows, size_t n, size_t dim, const uint8_t* bits, const int64_t* offsets,
                  uint8_t* payload);
void decode_mixed(const uint8_t* payload, const int64_t* offsets, const uint8_t* bits, size_t n, size_t dim,
                  float* rows);

// One row in one precision, for rows that are not contiguous.
void encode_row(const float* row, size_t dim, unsigned bits, uint8_t* payload);
void decode_row(const uint8_t* payload, size_t dim, unsigned bits, float* row);

}  // namespace springtide
