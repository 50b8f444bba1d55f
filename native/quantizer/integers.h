// Rows as integers: each weight is mantissa * 2^exponent with one exponent per row, so that two versions of a row on
// one step differ by small integers. Payloads have no header:
//
//   4, 8 bits  exponent i8, dim mantissas i8
//   16 bits    exponent i8, dim mantissas i16, little-endian
//
// The precision chooses the step. 4 bits: the squared error is that of sixteen levels fitted to a normal row, about 6 %
// of its length; 8 bits: the finest step at which all mantissas fit 8 bits; 16 bits: about the error of half floats.
//
// Pure functions over the caller's memory, thread-safe, linear in dim. Weights must be finite; those beyond 127 * 2^112
// (8 bits) saturate. The same row gives the same bytes on any machine. Any payload decodes to some row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

constexpr bool is_integer_precision(unsigned bits) { return bits < 32; }
constexpr size_t mantissa_bytes(unsigned bits) { return bits == 16 ? 2 : 1; }
constexpr size_t integer_bytes(unsigned bits, size_t dim) { return 1 + dim * mantissa_bytes(bits); }

// All functions require bits 4, 8 or 16.

// The exponent that a row gets at a precision.
int exponent_of(const float* row, size_t dim, unsigned bits);

// `served`, the exponent of the row's value in serving, if it differs by at most one from that of exponent_of() and all
// mantissas fit; otherwise exponent_of(). A row keeps its step until it has outgrown it.
int kept_exponent(const float* row, size_t dim, unsigned bits, int served);

// Mantissas are rounded to nearest, ties to even, and saturate.
void write_integers(const float* row, size_t dim, unsigned bits, int exponent, uint8_t* payload);
void read_integers(const uint8_t* payload, size_t dim, unsigned bits, float* row);

// Mantissas of `payload` minus (plus) those of `base`, modulo 2^8 or 2^16, in place. Requires equal exponents; the
// exponent of a difference is 0, that of a sum the exponent of the base.
void subtract_integers(const uint8_t* base, size_t dim, unsigned bits, uint8_t* payload);
void add_integers(const uint8_t* base, size_t dim, unsigned bits, uint8_t* payload);

}  // namespace springtide
