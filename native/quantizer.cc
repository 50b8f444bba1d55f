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

// Code of a weight on a grid. A weight beyond the grid gets a code at its edge, and where huge weights overflowed and
// left no number at all, the code is 0.
uint8_t code_of(float weight, float offset, float inverse, float most) {
    const float place = (weight - offset) * inverse;
    return static_cast<uint8_t>((place > 0 ? (place < most ? place : most) : 0.0f) + 0.5f);
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
        for (size_t i = 0; i < dim; ++i) codes[i] = code_of(row[i], offset, inverse, most);
        return;
    }
    for (size_t i = 0; i < dim; i += 2) {
        const unsigned low = code_of(row[i], offset, inverse, most);
        const unsigned high = i + 1 < dim ? code_of(row[i + 1], offset, inverse, most) : 0;
        codes[i / 2] = static_cast<uint8_t>(low | (high << 4));
    }
}

// Squared error of the row on a stored 4-bit grid.
double error_on(const float* row, size_t dim, Grid grid) {
    const float scale = from_half(grid.scale), offset = from_half(grid.offset), inverse = inverse_of(scale);
    double error = 0;
    for (size_t i = 0; i < dim; ++i) {
        const double off = row[i] - (offset + scale * static_cast<float>(code_of(row[i], offset, inverse, 15.0f)));
        error += off * off;
    }
    return error;
}

// What least squares needs of a row and its codes.
struct Sums {
    int64_t codes = 0, squares = 0;
    double weights = 0, products = 0;
};

Sums sums_of(const float* row, size_t dim, Line line) {
    const float inverse = inverse_of(line.scale);
    Sums sums;
    for (size_t i = 0; i < dim; ++i) {
        const int code = code_of(row[i], line.offset, inverse, 15.0f);
        sums.codes += code;
        sums.squares += code * code;
        sums.weights += row[i];
        sums.products += static_cast<double>(row[i]) * code;
    }
    return sums;
}

// Rounds of (codes, then the line that fits them best), then the line in halves: the offset first, and the scale fitted
// once more to the offset as rounded.
Grid descend(const float* row, size_t dim, Line line) {
    const auto n = static_cast<double>(dim);
    Sums sums = sums_of(row, dim, line);
    for (int round = 0; round < kRounds; ++round) {
        const double spread = n * static_cast<double>(sums.squares) - static_cast<double>(sums.codes * sums.codes);
        if (spread == 0) break;  // one code for all: the line is as good as any
        const double scale = (n * sums.products - static_cast<double>(sums.codes) * sums.weights) / spread;
        const double offset = (sums.weights - scale * static_cast<double>(sums.codes)) / n;
        line = {static_cast<float>(scale), static_cast<float>(offset)};
        const Sums next = sums_of(row, dim, line);
        const bool settled = next.codes == sums.codes && next.squares == sums.squares && next.products == sums.products;
        sums = next;
        if (settled) break;
    }
    const uint16_t offset = to_half(line.offset);
    if (sums.squares == 0) return {to_half(line.scale), offset};
    const double rest = sums.products - static_cast<double>(from_half(offset)) * static_cast<double>(sums.codes);
    return {to_half(static_cast<float>(rest / static_cast<double>(sums.squares))), offset};
}

Grid best_grid(const float* row, size_t dim, float least, float greatest) {
    // The covering grid is a try of its own: it bounds the error of rows whose offset does not fit a half well.
    Grid best = covering(least, greatest, 15.0f);
    double best_error = error_on(row, dim, best);
    for (const float clipped : {0.0f, kClippedShare}) {
        const float scale = greatest / 15.0f - least / 15.0f;  // the difference itself may not fit a float
        const Grid grid = descend(row, dim, {scale * (1 - 2 * clipped), least + scale * (15 * clipped)});
        const double error = error_on(row, dim, grid);
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
