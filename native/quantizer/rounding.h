// Rows that are trained for few bits: the forward pass reads each weight rounded to integers * 2^exponent, the values
// that serving will hold (integers.h), while the optimizer updates the row itself. The gradient with respect to the
// rounded weight is applied to the weight unchanged, the straight-through estimator of Bengio, Leonard and Courville,
// "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation" (2013).
//
//   eight_bits, four_bits  the steps of precision 8 and 4, integers.h
//   two_bits  a step between 0.71 and 1.41 times the root mean square: on average that of four levels fitted to a
//             normal row
//   ternary   -1, 0 or 1 times the scale of Li, Zhang and Liu, "Ternary Weight Networks" (2016), equation 5: the mean
//             magnitude of the weights above 0.7 times the mean magnitude
//   one_bit   the sign times the mean magnitude, as in Rastegari et al., "XNOR-Net" (2016), equation 6, over the real
//             weights that BinaryConnect (Courbariaux et al. 2015) keeps; 0 for a weight of 0
//
// Scales are rounded to the nearest power of two. Weights are rounded to the nearest integer, ties to even.
// Pure functions, thread-safe, linear in dim. Weights must be finite. The same row gives the same bits on any machine:
// the grid of a row is a function of its weights alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

enum class Rounding : uint8_t { none, one_bit, ternary, two_bits, four_bits, eight_bits };
inline constexpr unsigned kRoundings = 6;

// The grid of one row; with step 0, its weights are not rounded.
struct RowGrid {
    float step = 0, inverse = 0, limit = 0;

    // The weight in steps, from -limit to limit. A float as large as kRounding has no fraction: adding it rounds to
    // even.
    float integer_of(float weight) const {
        constexpr float kRounding = 0x1.8p23f;
        const float steps = weight * inverse;
        const float below = steps < limit ? steps : limit;
        return (below > -limit ? below : -limit) + kRounding - kRounding;
    }
    float value_of(float weight) const { return integer_of(weight) * step; }
};

// A row read in place: weight i is grid.value_of(weights[i]).
struct RoundedRow {
    const float* weights;
    RowGrid grid;
};

RowGrid grid_of(const float* row, size_t dim, Rounding rounding);

// Writes the payload of precision 8 or 4 (integer_bytes(8, dim) bytes) that decodes to the rounded row. Requires a
// rounding other than none.
void write_rounded(const float* row, size_t dim, Rounding rounding, uint8_t* payload);

}  // namespace springtide
