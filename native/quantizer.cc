#include "quantizer.h"

#include <algorithm>
#include <cstring>

#include "half.h"

namespace freshet {
namespace {

constexpr int kRounds = 5;
// The second start clips the row's ends by this share of its range on either side: for most rows the best grid is a
// little narrower than the row, and least squares alone seldom walks there from the full range.
constexpr float kClippedShare = 0.06f;

// A grid of codes 0..most, as it is stored.
struct Grid {
    uint16_t scale;
    uint16_t offset;
};

struct Line {
    float scale;
    float offset;
};

// Code of a weight on a grid, as a float. A weight beyond the grid gets a code at its edge.
float code_of(float weight, float offset, float inverse, float most) {
    const float place = (weight - offset) * inverse;
    return static_cast<float>(static_cast<int>((place > 0 ? (place < most ? place : most) : 0.0f) + 0.5f));
}

float inverse_of(float scale) { return scale == 0 ? 0.0f : 1.0f / scale; }

// The grid that covers least..greatest: rounded outwards, so that no weight lies beyond its ends.
Grid covering(float least, float greatest, float most) {
    const uint16_t offset = to_half_down(least);
    return {to_half_up((greatest - from_half(offset)) / most), offset};
}

void write_codes(const float* row, size_t dim, Grid grid, unsigned bits, uint8_t* payload) {
    const float offset = from_half(grid.offset), inverse = inverse_of(from_half(grid.scale));
    const float most = bits == 8 ? 255.0f : 15.0f;
    std::memcpy(payload, &grid, 4);
    uint8_t* codes = payload + 4;
    if (bits == 8) {
        for (size_t i = 0; i < dim; ++i) codes[i] = static_cast<uint8_t>(code_of(row[i], offset, inverse, most));
        return;
    }
    for (size_t i = 0; i < dim; i += 2) {
        const float low = code_of(row[i], offset, inverse, most);
        const float high = i + 1 < dim ? code_of(row[i + 1], offset, inverse, most) : 0.0f;
        codes[i / 2] = static_cast<uint8_t>(low + 16 * high);
    }
}

// Four weights abreast. The compiler maps them to whatever the machine has, and every machine adds in the same order.
using Four = float __attribute__((vector_size(16)));
using FourInts = int32_t __attribute__((vector_size(16)));

constexpr size_t kLanes = 4;

Four four_of(float value) { return Four{value, value, value, value}; }

float total(Four lanes) { return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]); }

// `code_of` for four weights on a 4-bit grid. Where huge weights overflow on the way to a line and leave no number at
// all, the code is still one; the line then loses to the covering grid.
Four codes_of(Four weights, float offset, float inverse) {
    const Four none = four_of(0), most = four_of(15);
    Four place = (weights - offset) * inverse;
    place = place < most ? place : most;
    place = place > none ? place : none;
    return __builtin_convertvector(__builtin_convertvector(place + 0.5f, FourInts), Four);
}

// Hands out the row four weights at a time, with 1 in the lanes that hold one and 0 in those behind the row's end.
template <class Visit>
void by_fours(const float* row, size_t dim, Visit visit) {
    size_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
        Four weights;
        std::memcpy(&weights, row + i, sizeof(weights));
        visit(weights, four_of(1));
    }
    if (i == dim) return;
    Four weights = four_of(row[i]), held = {};
    for (size_t lane = 0; i < dim; ++i, ++lane) weights[lane] = row[i], held[lane] = 1;
    visit(weights, held);
}

// Squared error of the row on a stored 4-bit grid.
float error_on(const float* row, size_t dim, Grid grid) {
    const float scale = from_half(grid.scale), offset = from_half(grid.offset), inverse = inverse_of(scale);
    Four error = {};
    by_fours(row, dim, [&](Four weights, Four held) {
        const Four off = (weights - (offset + scale * codes_of(weights, offset, inverse))) * held;
        error += off * off;
    });
    return total(error);
}

// What least squares needs of a row's codes. Sums of codes and of their squares are whole numbers below 2^24 for every
// dim there is, so exact.
struct Sums {
    float codes, squares, products;
    bool operator==(const Sums&) const = default;
};

// A row as least squares sees it: weights above the least one, so that a far mean costs no digits.
struct Lifted {
    const float* row;
    size_t dim;
    float least;
    float weights;  // their sum
};

Lifted lift(const float* row, size_t dim, float least) {
    Four sum = {};
    by_fours(row, dim, [&](Four weights, Four held) { sum += (weights - least) * held; });
    return {row, dim, least, total(sum)};
}

Sums sums_of(const Lifted& lifted, Line line) {
    const float inverse = inverse_of(line.scale);
    Four codes = {}, squares = {}, products = {};
    by_fours(lifted.row, lifted.dim, [&](Four weights, Four held) {
        const Four above = weights - lifted.least;
        const Four code = codes_of(above, line.offset, inverse) * held;
        codes += code;
        squares += code * code;
        products += above * code;
    });
    return {total(codes), total(squares), total(products)};
}

// Rounds of (codes, then the line that fits them best), then the line in halves: the offset first, and the scale fitted
// once more to the offset as rounded.
Grid descend(const Lifted& lifted, Line line) {
    const auto n = static_cast<float>(lifted.dim);
    Sums sums = sums_of(lifted, line);
    for (int round = 0; round < kRounds; ++round) {
        const float spread = sums.squares - sums.codes * (sums.codes / n);
        if (!(spread > 0)) break;  // one code for all: the line is as good as any
        const float scale = (sums.products - sums.codes * (lifted.weights / n)) / spread;
        line = {scale, (lifted.weights - scale * sums.codes) / n};
        const Sums next = sums_of(lifted, line);
        const bool settled = next == sums;
        sums = next;
        if (settled) break;
    }
    const uint16_t offset = to_half(line.offset + lifted.least);
    if (sums.squares == 0) return {to_half(line.scale), offset};
    const float rest = sums.products - (from_half(offset) - lifted.least) * sums.codes;
    return {to_half(rest / sums.squares), offset};
}

Grid best_grid(const float* row, size_t dim, float least, float greatest) {
    // The covering grid is a try of its own: it bounds the error of rows whose offset does not fit a half well.
    Grid best = covering(least, greatest, 15.0f);
    float best_error = error_on(row, dim, best);
    const Lifted lifted = lift(row, dim, least);
    for (const float clipped : {0.0f, kClippedShare}) {
        const float range = greatest - least;
        const Grid grid = descend(lifted, {range * (1 - 2 * clipped) / 15.0f, range * clipped});
        const float error = error_on(row, dim, grid);
        if (error < best_error) best = grid, best_error = error;
    }
    return best;
}

}  // namespace

void encode_row(const float* row, size_t dim, unsigned bits, uint8_t* payload) {
    if (bits == 32) {
        std::memcpy(payload, row, dim * sizeof(float));
    } else if (bits == 16) {
        for (size_t i = 0; i < dim; ++i) {
            const uint16_t half = to_half(row[i]);
            std::memcpy(payload + 2 * i, &half, sizeof(half));
        }
    } else {
        const auto [least, greatest] = std::minmax_element(row, row + dim);
        const Grid grid = bits == 8 ? covering(*least, *greatest, 255.0f) : best_grid(row, dim, *least, *greatest);
        write_codes(row, dim, grid, bits, payload);
    }
}

void decode_row(const uint8_t* payload, size_t dim, unsigned bits, float* row) {
    if (bits == 32) {
        std::memcpy(row, payload, dim * sizeof(float));
        return;
    }
    if (bits == 16) {
        for (size_t i = 0; i < dim; ++i) {
            uint16_t half;
            std::memcpy(&half, payload + 2 * i, sizeof(half));
            row[i] = from_half(half);
        }
        return;
    }
    Grid grid;
    std::memcpy(&grid, payload, sizeof(grid));
    const float scale = from_half(grid.scale), offset = from_half(grid.offset);
    const uint8_t* codes = payload + 4;
    for (size_t i = 0; i < dim; ++i) {
        const unsigned code = bits == 8 ? codes[i] : (codes[i / 2] >> (4 * (i & 1))) & 15;
        row[i] = offset + scale * static_cast<float>(code);
    }
}

}  // namespace freshet
