// The grid a row's weights are rounded to, for a register of rows at once. For native/kernels only.
#pragma once

#include "simd/kernels/halves.h"

namespace springtide {
namespace {

// The greatest code of so many bits.
template <unsigned bits>
constexpr float kMost = (1 << bits) - 1;

// Turned rows: at(i) is weight i of each.
struct Columns {
    const float* first;
    size_t dim;

    Floats at(size_t i) const { return load<Floats>(first + i * kLanes); }
};

// Where codes lie: code c stands for offset + scale * c.
struct Line {
    Floats scale, offset;
};

// A scale that halves hold as zero has no inverse: every weight gets code 0.
inline Floats inverse_of(Floats scale) { return scale > 0x1p-26f ? 1.0f / scale : floats(0); }

inline Floats within(Floats place, float most) {
    return greatest_of(least_of(place, floats(most)), floats(0));
}

// A line as it is stored, with what coding needs of it.
struct Grid {
    Ints word;
    Floats scale, offset, inverse;

    explicit Grid(Ints stored)
        : word(stored),
          scale(from_half(word & 0xFFFF)),
          offset(from_half((word >> 16) & 0xFFFF)),
          inverse(inverse_of(scale)) {}
    Grid(Ints scale_half, Ints offset_half) : Grid(scale_half | (offset_half << 16)) {}

    template <unsigned bits>
    Ints codes(Floats weights) const {
        return truncated(within((weights - offset) * inverse, kMost<bits>) + 0.5f);
    }
};

template <unsigned bits>
Floats error_on(const Grid& grid, Columns rows) {
    Floats error = {};
    for (size_t i = 0; i < rows.dim; ++i) {
        const Floats weights = rows.at(i);
        const Floats off = weights - (grid.offset + grid.scale * to_floats(grid.codes<bits>(weights)));
        error += off * off;
    }
    return error;
}

struct Ends {
    Floats least, greatest;
};

inline Ends ends_of(Columns rows) {
    Ends ends = {rows.at(0), rows.at(0)};
    for (size_t i = 1; i < rows.dim; ++i) {
        const Floats weights = rows.at(i);
        ends.least = least_of(weights, ends.least);
        ends.greatest = greatest_of(weights, ends.greatest);
    }
    return ends;
}

// The grid that covers a row from end to end: rounded outwards, so that no weight lies beyond it.
template <unsigned bits>
Grid covering(Ends ends) {
    const Ints offset = to_half_down(ends.least);
    const Floats range = greatest_of(ends.greatest - from_half(offset), floats(0));  // below -65504 there is none
    return {to_half_up(range / kMost<bits>), offset};
}

}  // namespace
}  // namespace springtide
