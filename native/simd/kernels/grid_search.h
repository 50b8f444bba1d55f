// The search for the grid with the least squared error, for a register of rows at once. For native/kernels only.
//
// Coordinate descent: codes for a line, then the line that fits these codes best (least squares), in turns. Where it
// ends depends on where it starts. Mostly the best grid leaves the outermost weight of one end, or of both, a little
// outside, and a descent from the full range seldom finds that: so there are four starts, one per case.
#pragma once

#include "simd/kernels/grid.h"

namespace springtide {
namespace {

constexpr int kRounds = 3;

// How far a start moves each end inwards, in steps of the full grid.
struct Start {
    float low, high;
};
constexpr Start kStarts[] = {{0, 0}, {0.45f, 0}, {0, 0.45f}, {0.75f, 0.75f}};

// Rows as least squares sees them: weights above the least one, so that a far mean costs no digits.
struct Lifted {
    Columns rows;
    Floats least, total;

    Floats at(size_t i) const { return rows.at(i) - least; }
};

inline Lifted lift(Columns rows, Floats least) {
    Lifted lifted = {rows, least, {}};
    for (size_t i = 0; i < rows.dim; ++i) lifted.total += lifted.at(i);
    return lifted;
}

// What least squares needs of the codes on a line. Codes are whole numbers and their sums exact.
struct Sums {
    Floats codes = {}, squares = {}, products = {};
};

// Nearest whole numbers of floats below 2^22: the addition rounds away what lies behind the point.
inline Floats nearest(Floats place) {
    constexpr float kWhole = 0x1.8p23f;
    return (place + kWhole) - kWhole;
}

template <unsigned bits>
Sums sums_of(const Lifted& lifted, Line line) {
    const Floats inverse = inverse_of(line.scale), start = -line.offset * inverse;
    Sums sums;
    for (size_t i = 0; i < lifted.rows.dim; ++i) {
        const Floats above = lifted.at(i);
        const Floats code = nearest(within(above * inverse + start, kMost<bits>));
        sums.codes += code;
        sums.squares += code * code;
        sums.products += above * code;
    }
    return sums;
}

// A line that fits its codes, and by how much it lowers the squared error against one value for all.
struct Fitted {
    Line line;
    Floats gain;
};

template <unsigned bits>
Fitted descend(const Lifted& lifted, Line line) {
    const float share = 1.0f / static_cast<float>(lifted.rows.dim);
    Floats gain = {};
    for (int round = 0; round < kRounds; ++round) {
        const Sums sums = sums_of<bits>(lifted, line);
        const Floats spread = sums.squares - sums.codes * (sums.codes * share);
        const Floats together = sums.products - sums.codes * (lifted.total * share);
        const Ints spreads = spread > 0.0f;  // else one code for all, and the line is as good as any
        const Floats scale = together / (spreads ? spread : floats(1));
        line.scale = spreads ? scale : line.scale;
        line.offset = spreads ? (lifted.total - scale * sums.codes) * share : line.offset;
        gain = spreads ? together * scale : gain;
    }
    return {line, gain};
}

template <unsigned bits>
Line best_line(const Lifted& lifted, Floats range) {
    const Floats step = range / kMost<bits>;
    Fitted best = {{step, {}}, floats(-1)};
    for (const Start start : kStarts) {
        const Floats inner = range - step * (start.low + start.high);
        const Fitted found = descend<bits>(lifted, {inner / kMost<bits>, step * start.low});
        const Ints better = found.gain > best.gain;
        best.line.scale = better ? found.line.scale : best.line.scale;
        best.line.offset = better ? found.line.offset : best.line.offset;
        best.gain = better ? found.gain : best.gain;
    }
    return best.line;
}

// A line in halves. Either number can be rounded first and the other fitted once more to it; which is better depends on
// which of them halves hold worse.
struct Rounded {
    Grid offset_first, scale_first;
};

inline Floats not_negative(Floats scale) { return greatest_of(scale, floats(0)); }

template <unsigned bits>
Rounded rounded(const Lifted& lifted, Line line) {
    const Sums sums = sums_of<bits>(lifted, line);
    const Ints offset = to_half(line.offset + lifted.least);
    const Floats rest = sums.products - (from_half(offset) - lifted.least) * sums.codes;
    const Ints coded = sums.squares > 0.0f;
    const Floats scale = coded ? rest / (coded ? sums.squares : floats(1)) : line.scale;
    const Ints rounded_scale = to_half(not_negative(line.scale));
    const Floats mean = (lifted.total - from_half(rounded_scale) * sums.codes) / static_cast<float>(lifted.rows.dim);
    return {{to_half(not_negative(scale)), offset}, {rounded_scale, to_half(mean + lifted.least)}};
}

// The best grid so far and its squared error.
struct Best {
    Ints word;
    Floats error;

    template <unsigned bits>
    void consider(const Grid& grid, Columns rows) {
        const Floats error_there = error_on<bits>(grid, rows);
        word = error_there < error ? grid.word : word;
        error = least_of(error_there, error);
    }
};

template <unsigned bits>
Ints best_grid(Columns rows) {
    const Ends ends = ends_of(rows);
    const Lifted lifted = lift(rows, ends.least);
    // The covering grid is a try of its own: it bounds the error of rows whose offset does not fit a half well.
    const Grid safe = covering<bits>(ends);
    Best best = {safe.word, error_on<bits>(safe, rows)};
    const Rounded found = rounded<bits>(lifted, best_line<bits>(lifted, ends.greatest - ends.least));
    best.consider<bits>(found.offset_first, rows);
    best.consider<bits>(found.scale_first, rows);
    return best.word;
}

}  // namespace
}  // namespace springtide
