// The grid a row's weights are rounded to, for a register of rows at once. For simd/kernels/ only.
#pragma once

#include "simd/kernels/halves.h"

namespace springtide {
namespace {

// The greatest code of this many bits.
template <unsigned bits>
constexpr float kMaxCode = (1 << bits) - 1;

// Transposed rows: at(i) is weight i of each row.
struct Columns {
    const float* first;
    size_t dim;

    Floats at(size_t i) const { return load<Floats>(first + i * kLanes); }
};

// A grid before rounding to halves: code c decodes to offset + scale * c.
struct Line {
    Floats scale, offset;
};

// 0 for a scale that rounds to a zero half: every weight gets code 0.
inline Floats inverse_of(Floats scale) { return scale > 0x1p-26f ? 1.0f / scale : floats(0); }

inline Floats clamped(Floats position, float max) {
    return max_of(min_of(position, floats(max)), floats(0));
}

// A grid as stored, a pair of halves, and its decoded scale and offset.
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
        return truncated(clamped((weights - offset) * inverse, kMaxCode<bits>) + 0.5f);
    }
};

// The squared error of each row on its grid.
template <unsigned bits>
Floats error_on(const Grid& grid, Columns rows) {
    Floats error = {};
    for (size_t i = 0; i < rows.dim; ++i) {
        const Floats weights = rows.at(i);
        const Floats difference = weights - (grid.offset + grid.scale * to_floats(grid.codes<bits>(weights)));
        error += difference * difference;
    }
    return error;
}

struct MinMax {
    Floats min, max;
};

inline MinMax min_max(Columns rows) {
    MinMax found = {rows.at(0), rows.at(0)};
    for (size_t i = 1; i < rows.dim; ++i) {
        const Floats weights = rows.at(i);
        found.min = min_of(weights, found.min);
        found.max = max_of(weights, found.max);
    }
    return found;
}

// The grid that covers the whole range of a row: rounded outwards, so that every weight lies inside it.
template <unsigned bits>
Grid covering(MinMax weights) {
    const Ints offset = to_half_down(weights.min);
    const Floats range = max_of(weights.max - from_half(offset), floats(0));  // negative for weights below -65504
    return {to_half_up(range / kMaxCode<bits>), offset};
}

}  // namespace
}  // namespace springtide
