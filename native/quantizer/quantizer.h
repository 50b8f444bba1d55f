// Rows of floats in fewer bits: what travels to serving and what serving holds.
//
// Pure functions over the caller's memory, safe from any thread. Encoding a batch allocates 16 rows of scratch where
// dim > 64 (std::bad_alloc), otherwise nothing. The same row gives the same bytes on any machine, whatever rows are
// beside it. Weights must be finite; any bytes decode to something. Payloads are little-endian and have no header; who
// holds them knows codec and dim:
//
//   fp32  dim x f32, as they are
//   fp16  dim x f16, nearest, ties to even, beyond +-65504 saturated
//   bf16  dim x the upper half of an f32, nearest, ties to even, beyond the greatest finite one saturated
//   int8  scale f16, offset f16, dim codes of one byte
//   int4  scale f16, offset f16, (dim + 1) / 2 bytes of two codes each, the first lowest, what is left over zero
//   int2  scale f16, offset f16, (dim + 3) / 4 bytes of four codes each, likewise
//
// The value of a code is offset + scale * code, in float32, one multiplication and one addition. A scale is never
// negative. With int8 no weight of a row within +-65504 is off by more than half a scale (and a rounding). With int4
// and int2 scale and offset are those with the least squared error of three tries: the grid that covers the row, and
// two roundings of what a search found; the error counted is that of the bytes written. With all three, weights below
// -65504 come back as that.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

enum class Codec : uint8_t { int2, int4, int8, bf16, fp16, fp32 };

// Whether a batch of mixed precisions can have so many bits per weight, and which codec that is.
constexpr bool known_precision(unsigned bits) { return bits == 4 || bits == 8 || bits == 16 || bits == 32; }
constexpr Codec codec_of(unsigned bits) {
    return bits == 4 ? Codec::int4 : bits == 8 ? Codec::int8 : bits == 16 ? Codec::fp16 : Codec::fp32;
}

// Bytes of the codes alone, and of one row of `dim` weights.
constexpr size_t code_bytes(unsigned bits, size_t dim) { return (dim * bits + 7) / 8; }
constexpr size_t payload_bytes(Codec codec, size_t dim) {
    switch (codec) {
        case Codec::int2: return 4 + code_bytes(2, dim);
        case Codec::int4: return 4 + code_bytes(4, dim);
        case Codec::int8: return 4 + dim;
        case Codec::fp32: return 4 * dim;
        default: return 2 * dim;
    }
}
constexpr size_t payload_bytes(unsigned bits, size_t dim) { return payload_bytes(codec_of(bits), dim); }

// All functions want 1 <= dim <= 65536 and cost time linear in n * dim; int4 and int2 go over a row about 20 times.

// n rows of one codec, payloads one after the other.
void encode_rows(Codec codec, const float* rows, size_t n, size_t dim, uint8_t* payloads);
void decode_rows(Codec codec, const uint8_t* payloads, size_t n, size_t dim, float* rows);

// Row i in bits[i], a known precision, at payload + offsets[i].
void encode_mixed(const float* rows, size_t n, size_t dim, const uint8_t* bits, const int64_t* offsets,
                  uint8_t* payload);
void decode_mixed(const uint8_t* payload, const int64_t* offsets, const uint8_t* bits, size_t n, size_t dim,
                  float* rows);

// One row in a known precision; for who has them scattered.
void encode_row(const float* row, size_t dim, unsigned bits, uint8_t* payload);
void decode_row(const uint8_t* payload, size_t dim, unsigned bits, float* row);

}  // namespace springtide
