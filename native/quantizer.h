// Rows of floats in 4, 8, 16 or 32 bits per weight: what travels to serving and what serving holds.
//
// Pure functions over the caller's memory, safe from any thread, no allocation. The same row gives the same bytes on
// any machine. Inputs must be finite. Payloads are little-endian and have no header; who holds them knows bits and dim:
//
//   32  dim x f32, as they are
//   16  dim x f16, nearest, ties to even, beyond +-65504 saturated
//    8  scale f16, offset f16, dim codes of one byte
//    4  scale f16, offset f16, (dim + 1) / 2 bytes of two codes each, the low nibble first, an odd last nibble zero
//
// The value of a code is offset + scale * code, in float32, one multiplication and one addition. With 8 bits no weight
// of a row within +-65504 is off by more than half a scale (and a rounding). With 4 bits scale and offset are those with
// the least squared error of three tries; the error counted is that of the bytes written.
#pragma once

#include <cstddef>
#include <cstdint>

namespace freshet {

// Whether rows can be kept in so many bits per weight.
constexpr bool known_precision(unsigned bits) { return bits == 4 || bits == 8 || bits == 16 || bits == 32; }

// Bytes of one row of `dim` weights. Wants a known precision.
constexpr size_t payload_bytes(unsigned bits, size_t dim) {
    return bits >= 16 ? dim * (bits / 8) : 4 + (bits == 8 ? dim : (dim + 1) / 2);
}

// Writes payload_bytes(bits, dim) bytes. Wants 1 <= dim <= 65536. Cost is linear in dim; 4 bits take up to ten rounds.
void encode_row(const float* row, size_t dim, unsigned bits, uint8_t* payload);

// Writes dim floats.
void decode_row(const uint8_t* payload, size_t dim, unsigned bits, float* row);

}  // namespace freshet
