#include "quantizer/codebook.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quantizer/half.h"
#include "quantizer/lane_batch.h"
#include "quantizer/quantizer.h"

namespace springtide {
namespace {

constexpr size_t kMaxSampledRows = 4096;  // for k-means
constexpr int kRounds = 12;

// A grid as a point for k-means: for uniformly distributed codes, the squared distance of two points is the mean
// squared difference of their grids' values.
struct Point {
    double middle, deviation;
};

class GridSpace {
public:
    explicit GridSpace(unsigned bits)
        : max_code_((1u << bits) - 1), deviation_(std::sqrt(max_code_ * (max_code_ + 2) / 12)) {}

    Point point_of(uint32_t grid) const {
        const double scale = from_half(grid & 0xFFFF), offset = from_half(grid >> 16);
        return {offset + scale * max_code_ / 2, scale * deviation_};
    }
    uint32_t grid_of(Point point) const {
        const double scale = point.deviation / deviation_;
        const uint32_t offset = to_half(static_cast<float>(point.middle - scale * max_code_ / 2));
        return to_half(static_cast<float>(scale)) | offset << 16;
    }

private:
    const double max_code_, deviation_;  // greatest code, and standard deviation of uniformly distributed codes
};

// The i-th of `count` positions distributed evenly over n.
size_t sample_position(size_t i, size_t count, size_t n) { return i * n / count; }

// The fitted grids of rows sampled evenly from the batch.
std::vector<uint32_t> sampled_grids(const float* rows, size_t n, size_t dim, unsigned bits) {
    const QuantizerKernels& kernels = quantizer_kernels();
    TransposedRows transposed(dim);
    std::vector<uint32_t> grids(std::min(n, kMaxSampledRows));
    LaneBatch<uint32_t*> batch(kernels.lanes);
    const auto fit = [&](const float* const* selected, uint32_t* const* targets) {
        uint32_t fitted[16];
        kernels.transpose(selected, dim, transposed.data());
        code_kernels(kernels, bits).fit(transposed.data(), dim, fitted);
        for (size_t lane = 0; lane < kernels.lanes; ++lane) *targets[lane] = fitted[lane];
    };
    for (size_t i = 0; i < grids.size(); ++i)
        batch.add(rows + sample_position(i, grids.size(), n) * dim, &grids[i], fit);
    batch.finish(fit);
    return grids;
}

size_t nearest(const std::vector<Point>& centres, Point point) {
    size_t best = 0;
    double least_distance = HUGE_VAL;
    for (size_t i = 0; i < centres.size(); ++i) {
        const double dm = point.middle - centres[i].middle, dd = point.deviation - centres[i].deviation;
        const double distance = dm * dm + dd * dd;
        if (distance < least_distance) best = i, least_distance = distance;
    }
    return best;
}

// One round of k-means; a centre without points stays unchanged.
void refine(std::vector<Point>& centres, const std::vector<Point>& points) {
    std::vector<Point> sums(centres.size(), Point{0, 0});
    std::vector<double> counts(centres.size(), 0);
    for (const Point& point : points) {
        const size_t i = nearest(centres, point);
        sums[i].middle += point.middle, sums[i].deviation += point.deviation, counts[i] += 1;
    }
    for (size_t i = 0; i < centres.size(); ++i)
        if (counts[i] > 0) centres[i] = {sums[i].middle / counts[i], sums[i].deviation / counts[i]};
}

// The table of grids, by k-means over sampled grids.
std::vector<uint32_t> shared_grids(const float* rows, size_t n, size_t dim, unsigned bits, size_t entries) {
    const GridSpace space(bits);
    std::vector<Point> points, centres;
    for (const uint32_t grid : sampled_grids(rows, n, dim, bits)) points.push_back(space.point_of(grid));
    for (size_t i = 0; i < entries; ++i) centres.push_back(points[sample_position(i, entries, points.size())]);
    for (int round = 0; round < kRounds; ++round) refine(centres, points);
    std::vector<uint32_t> table;
    for (const Point& centre : centres) table.push_back(space.grid_of(centre));
    return table;
}

// Encodes each row on the grid of the table with the least squared error.
void write_rows(const float* rows, size_t n, size_t dim, unsigned bits, const std::vector<uint32_t>& table,
                uint8_t* payloads) {
    const QuantizerKernels& kernels = quantizer_kernels();
    const CodeKernels& codes = code_kernels(kernels, bits);
    TransposedRows transposed(dim);
    LaneBatch<uint8_t*> batch(kernels.lanes);
    const auto write = [&](const float* const* selected, uint8_t* const* targets) {
        uint32_t chosen[16], grids[16];
        uint8_t* code_targets[16];
        kernels.transpose(selected, dim, transposed.data());
        codes.choose(transposed.data(), dim, table.data(), table.size(), chosen);
        for (size_t lane = 0; lane < kernels.lanes; ++lane) {
            grids[lane] = table[chosen[lane]];
            std::memcpy(targets[lane], &grids[lane], sizeof(grids[lane]));
            code_targets[lane] = targets[lane] + sizeof(grids[lane]);
        }
        codes.write(transposed.data(), dim, grids, code_targets);
    };
    const size_t row_bytes = 4 + code_bytes(bits, dim);
    for (size_t i = 0; i < n; ++i) batch.add(rows + i * dim, payloads + i * row_bytes, write);
    batch.finish(write);
}

}  // namespace

void encode_codebook(const float* rows, size_t n, size_t dim, unsigned bits, size_t entries, uint8_t* payloads) {
    if (n == 0) return;
    write_rows(rows, n, dim, bits, shared_grids(rows, n, dim, bits, std::min(n, entries)), payloads);
}

}  // namespace springtide
