// The search for the grid with the least squared error, for a register of rows at once. For simd/kernels/ only.
//
// Coordinate descent alternates between the codes on a line (scale and offset) and the least-squares line for these
// codes. The result depends on the start. The best grid usually leaves the outermost weight at one end, or at both,
// slightly outside, which a descent from the full range rarely finds: hence four starts, one per case.
#pragma once

#include "simd/kernels/quantizer/grid.h"

namespace springtide {
namespace {

constexpr int kRounds = 3;

// By how many steps of the full grid a start moves each end inwards.
struct Start {
    float low, high;
};
constexpr Start kStarts[] = {{0, 0}, {0.45f, 0}, {0, 0.45f}, {0.75f, 0.75f}};

// Weights minus the row's minimum: a mean far from zero then costs no precision.
struct Shifted {
    Columns rows;
    Floats min, total;

    Floats at(size_t i) const { return rows.at(i) - min; }
};

inline Shifted shift(Columns rows, Floats min) {
    Shifted shifted = {rows, min, {}};
    for (size_t i = 0; i < rows.dim; ++i) shifted.total += shifted.at(i);
    return shifted;
}

// The sums least squares needs: of codes, squared codes, and weights times codes. Codes are integers, their sums exact.
struct Sums {
    Floats codes = {}, squares = {}, products = {};
};

// The nearest integers of floats below 2^22: the addition rounds off the fraction.
inline Floats nearest(Floats value) {
    constexpr float kRounding = 0x1.8p23f;
    return (value + kRounding) - kRounding;
}

template <unsigned bits>
Sums sums_of(const Shifted& shifted, Line line) {
    const Floats inverse = inverse_of(line.scale), start = -line.offset * inverse;
    Sums sums;
    for (size_t i = 0; i < shifted.rows.dim; ++i) {
        const Floats weight = shifted.at(i);
        const Floats code = nearest(clamped(weight * inverse + start, kMaxCode<bits>));
        sums.codes += code;
        sums.squares += code * code;
        sums.products += weight * code;
    }
    return sums;
}

// A least-squares line, and the reduction of the squared error relative to one value for all weights.
struct Fitted {
    Line line;
    Floats gain;
};

template <unsigned bits>
Fitted descend(const Shifted& shifted, Line line) {
    const float share = 1.0f / static_cast<float>(shifted.rows.dim);
    Floats gain = {};
    for (int round = 0; round < kRounds; ++round) {
        const Sums sums = sums_of<bits>(shifted, line);
        const Floats variance = sums.squares - sums.codes * (sums.codes * share);
        const Floats covariance = sums.products - sums.codes * (shifted.total * share);
        const Ints varies = variance > 0.0f;  // otherwise all weights have one code and the line is unchanged
        const Floats scale = covariance / (varies ? variance : floats(1));
        line.scale = varies ? scale : line.scale;
        line.offset = varies ? (shifted.total - scale * sums.codes) * share : line.offset;
        gain = varies ? covariance * scale : gain;
    }
    return {line, gain};
}

template <unsigned bits>
Line best_line(const Shifted& shifted, Floats range) {
    const Floats step = range / kMaxCode<bits>;
    Fitted best = {{step, {}}, floats(-1)};
    for (const Start start : kStarts) {
        const Floats inner = range - step * (start.low + start.high);
        const Fitted found = descend<bits>(shifted, {inner / kMaxCode<bits>, step * start.low});
        const Ints better = found.gain > best.gain;
        best.line.scale = better ? found.line.scale : best.line.scale;
        best.line.offset = better ? found.line.offset : best.line.offset;
        best.gain = better ? found.gain : best.gain;
    }
    return best.line;
}

// A line rounded to halves in two ways: one number is rounded first and the other fitted again to the rounded value.
// Which is better depends on which of the two loses more by rounding.
struct Rounded {
    Grid offset_first, scale_first;
};

inline Floats not_negative(Floats scale) { return max_of(scale, floats(0)); }

template <unsigned bits>
Rounded rounded(const Shifted& shifted, Line line) {
    const Sums sums = sums_of<bits>(shifted, line);
    const Ints offset = to_half(line.offset + shifted.min);
    const Floats rest = sums.products - (from_half(offset) - shifted.min) * sums.codes;
    const Ints coded = sums.squares > 0.0f;
    const Floats scale = coded ? rest / (coded ? sums.squares : floats(1)) : line.scale;
    const Ints rounded_scale = to_half(not_negative(line.scale));
    const Floats mean = (shifted.total - from_half(rounded_scale) * sums.codes) / static_cast<float>(shifted.rows.dim);
    return {{to_half(not_negative(scale)), offset}, {rounded_scale, to_half(mean + shifted.min)}};
}

// The best grid so far and its squared error.
struct Best {
    Ints word;
    Floats error;

    template <unsigned bits>
    void consider(const Grid& grid, Columns rows) {
        const Floats candidate = error_on<bits>(grid, rows);
        word = candidate < error ? grid.word : word;
        error = min_of(candidate, error);
    }
};

template <unsigned bits>
Ints best_grid(Columns rows) {
    const MinMax weights = min_max(rows);
    const Shifted shifted = shift(rows, weights.min);
    // The covering grid is a candidate too: it bounds the error of rows whose offset loses much as a half.
    const Grid safe = covering<bits>(weights);
    Best best = {safe.word, error_on<bits>(safe, rows)};
    const Rounded found = rounded<bits>(shifted, best_line<bits>(shifted, weights.max - weights.min));
    best.consider<bits>(found.offset_first, rows);
    best.consider<bits>(found.scale_first, rows);
    return best.word;
}

}  // namespace
}  // namespace springtide
