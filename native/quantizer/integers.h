// Rows as integers: each weight is mantissa * 2^exponent with one exponent per row, so that two versions of a row on
// one step differ by small integers. Payloads have no header:
//
//   4, 8 bits  exponent i8, dim mantissas i8
//   16 bits    exponent i8, dim mantissas i16, little-endian
//
// By exponent_of() the precision chooses the step. 4 bits: the squared error is that of sixteen levels fitted to a normal row, about 6 %
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

// The step and the precision of a row.
struct IntegerGrid {
    unsigned bits;  // 0: none
    int exponent;
};

// The grid of a row whose step is to be 2^exponent; finer is not possible than 16 bits allow. A row keeps the exponent
// of `served`, its value in serving, while this differs by at most one and all mantissas fit. The precision is the least
// of 4 (mantissas of at most 7), 8 and 16 that all mantissas fit; with the exponent a row keeps the precision, too,
// while they fit.
IntegerGrid grid_near(const float* row, size_t dim, int exponent, IntegerGrid served);

// Mantissas are rounded to nearest, ties to even, and saturate.
void write_integers(const float* row, size_t dim, unsigned bits, int exponent, uint8_t* payload);
void read_integers(const uint8_t* payload, size_t dim, unsigned bits, float* row);

// Mantissas of `payload` minus (plus) those of `base`, modulo 2^8 or 2^16, in place. Requires equal exponents; the
// exponent of a difference is 0, that of a sum the exponent of the base.
void subtract_integers(const uint8_t* base, size_t dim, unsigned bits, uint8_t* payload);
void add_integers(const uint8_t* base, size_t dim, unsigned bits, uint8_t* payload);

}  // namespace springtide
