#include "quantizer/codebook.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quantizer/half.h"
#include "quantizer/quantizer.h"
#include "quantizer/lane_gather.h"

namespace springtide {
namespace {

constexpr size_t kHeaderBytes = 8;
constexpr size_t kMostSampled = 4096;  // rows the table is made from
constexpr int kRounds = 12;

// A grid as k-means sees it: on codes spread evenly, the squared distance of two points is the mean squared difference
// of their grids' values.
struct Point {
    double middle, spread;
};

class GridSpace {
public:
    explicit GridSpace(unsigned bits) : most_((1u << bits) - 1), deviation_(std::sqrt(most_ * (most_ + 2) / 12)) {}

    Point point_of(uint32_t grid) const {
        const double scale = from_half(grid & 0xFFFF), offset = from_half(grid >> 16);
        return {offset + scale * most_ / 2, scale * deviation_};
    }
    uint32_t grid_of(Point point) const {
        const double scale = point.spread / deviation_;
        const uint32_t offset = to_half(static_cast<float>(point.middle - scale * most_ / 2));
        return to_half(static_cast<float>(scale)) | offset << 16;
    }

private:
    const double most_, deviation_;
};

// The i-th of `count` places spread evenly over n.
size_t spread_place(size_t i, size_t count, size_t n) { return i * n / count; }

// Fitted grids of rows spread evenly over the batch.
std::vector<uint32_t> sampled_grids(const float* rows, size_t n, size_t dim, unsigned bits) {
    const QuantizerKernels& kernels = quantizer_kernels();
    TurnedRows turned(dim);
    std::vector<uint32_t> grids(std::min(n, kMostSampled));
    Lanes<uint32_t*> lanes(kernels.lanes);
    const auto fit = [&](const float* const* some, uint32_t* const* targets) {
        uint32_t fitted[16];
        kernels.turn(some, dim, turned.data());
        code_kernels(kernels, bits).fit(turned.data(), dim, fitted);
        for (size_t lane = 0; lane < kernels.lanes; ++lane) *targets[lane] = fitted[lane];
    };
    for (size_t i = 0; i < grids.size(); ++i) lanes.add(rows + spread_place(i, grids.size(), n) * dim, &grids[i], fit);
    lanes.finish(fit);
    return grids;
}

size_t nearest(const std::vector<Point>& centres, Point point) {
    size_t best = 0;
    double least = HUGE_VAL;
    for (size_t i = 0; i < centres.size(); ++i) {
        const double across = point.middle - centres[i].middle, along = point.spread - centres[i].spread;
        const double distance = across * across + along * along;
        if (distance < least) best = i, least = distance;
    }
    return best;
}

// One round of k-means; a centre that nothing is nearest to stays.
void settle(std::vector<Point>& centres, const std::vector<Point>& points) {
    std::vector<Point> sums(centres.size(), Point{0, 0});
    std::vector<double> counts(centres.size(), 0);
    for (const Point& point : points) {
        const size_t own = nearest(centres, point);
        sums[own].middle += point.middle, sums[own].spread += point.spread, counts[own] += 1;
    }
    for (size_t i = 0; i < centres.size(); ++i)
        if (counts[i] > 0) centres[i] = {sums[i].middle / counts[i], sums[i].spread / counts[i]};
}

// A table of grids that rows can share.
std::vector<uint32_t> shared_grids(const float* rows, size_t n, size_t dim, unsigned bits, size_t entries) {
    const GridSpace space(bits);
    std::vector<Point> points, centres;
    for (const uint32_t grid : sampled_grids(rows, n, dim, bits)) points.push_back(space.point_of(grid));
    for (size_t i = 0; i < entries; ++i) centres.push_back(points[spread_place(i, entries, points.size())]);
    for (int round = 0; round < kRounds; ++round) settle(centres, points);
    std::vector<uint32_t> table;
    for (const Point& centre : centres) table.push_back(space.grid_of(centre));
    return table;
}

void write_header(const CodebookShape& shape, uint8_t* out) {
    const auto last_dim = static_cast<uint16_t>(shape.dim - 1);
    const auto rows = static_cast<uint32_t>(shape.rows);
    out[0] = static_cast<uint8_t>(shape.bits);
    out[1] = static_cast<uint8_t>(shape.entries - 1);
    std::memcpy(out + 2, &last_dim, sizeof(last_dim));
    std::memcpy(out + 4, &rows, sizeof(rows));
}

// Where the parts of a codebook begin.
struct Parts {
    explicit Parts(const CodebookShape& shape)
        : row_bytes(code_bytes(shape.bits, shape.dim)),
          entry_of(kHeaderBytes + 4 * shape.entries),
          codes(entry_of + shape.rows),
          end(codes + shape.rows * row_bytes) {}

    size_t row_bytes, entry_of, codes, end;
};

// Each row on the entry that leaves the least squared error.
void write_rows(const float* rows, const CodebookShape& shape, const std::vector<uint32_t>& table, uint8_t* out) {
    const QuantizerKernels& kernels = quantizer_kernels();
    const CodeKernels& codes = code_kernels(kernels, shape.bits);
    const Parts parts(shape);
    TurnedRows turned(shape.dim);
    Lanes<size_t> lanes(kernels.lanes);
    const auto write = [&](const float* const* some, const size_t* places) {
        uint32_t chosen[16], grids[16];
        uint8_t* targets[16];
        kernels.turn(some, shape.dim, turned.data());
        codes.choose(turned.data(), shape.dim, table.data(), table.size(), chosen);
        for (size_t lane = 0; lane < kernels.lanes; ++lane) {
            out[parts.entry_of + places[lane]] = static_cast<uint8_t>(chosen[lane]);
            grids[lane] = table[chosen[lane]];
            targets[lane] = out + parts.codes + places[lane] * parts.row_bytes;
        }
        codes.write(turned.data(), shape.dim, grids, targets);
    };
    for (size_t i = 0; i < shape.rows; ++i) lanes.add(rows + i * shape.dim, i, write);
    lanes.finish(write);
}

bool sound(uint32_t grid) {
    const uint32_t scale = grid & 0xFFFF, offset = grid >> 16;
    return scale <= kMostHalf && (offset & 0x7FFF) <= kMostHalf;
}

}  // namespace

std::vector<uint8_t> encode_codebook(const float* rows, size_t n, size_t dim, unsigned bits, size_t entries) {
    const CodebookShape shape = {bits, std::clamp<size_t>(n, 1, entries), dim, n};
    std::vector<uint8_t> bytes(Parts(shape).end);
    write_header(shape, bytes.data());
    if (n == 0) return bytes;
    const std::vector<uint32_t> table = shared_grids(rows, n, dim, bits, shape.entries);
    std::memcpy(bytes.data() + kHeaderBytes, table.data(), 4 * table.size());
    write_rows(rows, shape, table, bytes.data());
    return bytes;
}

const char* check_codebook(const uint8_t* bytes, size_t length, CodebookShape& shape) {
    shape = {};
    if (length < kHeaderBytes) return "shorter than its header";
    uint16_t last_dim;
    uint32_t rows;
    std::memcpy(&last_dim, bytes + 2, sizeof(last_dim));
    std::memcpy(&rows, bytes + 4, sizeof(rows));
    const CodebookShape told = {bytes[0], bytes[1] + size_t{1}, last_dim + size_t{1}, rows};
    if (told.bits != 2 && told.bits != 4 && told.bits != 8) return "of bits other than 2, 4 or 8";
    const Parts parts(told);
    if (length != parts.end) return "not as long as its header says";
    for (size_t i = 0; i < told.entries; ++i) {
        uint32_t grid;
        std::memcpy(&grid, bytes + kHeaderBytes + 4 * i, sizeof(grid));
        if (!sound(grid)) return "with an entry that is not finite or whose scale is negative";
    }
    const uint8_t* entry_of = bytes + parts.entry_of;
    if (std::any_of(entry_of, entry_of + told.rows, [&](uint8_t entry) { return entry >= told.entries; }))
        return "with a row whose entry is not in the table";
    shape = told;
    return nullptr;
}

void decode_codebook(const uint8_t* bytes, const CodebookShape& shape, float* rows) {
    const CodeKernels& codes = code_kernels(quantizer_kernels(), shape.bits);
    const Parts parts(shape);
    for (size_t i = 0; i < shape.rows; ++i) {
        uint32_t grid;
        std::memcpy(&grid, bytes + kHeaderBytes + 4 * size_t{bytes[parts.entry_of + i]}, sizeof(grid));
        codes.read(bytes + parts.codes + i * parts.row_bytes, shape.dim, grid, rows + i * shape.dim);
    }
}

}  // namespace springtide
