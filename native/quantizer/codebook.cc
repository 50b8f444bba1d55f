#include "quantizer/codebook.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quantizer/half.h"
#include "quantizer/lane_batch.h"
#include "quantizer/quantizer.h"

namespace springtide {
namespace {

constexpr size_t kHeaderBytes = 8;
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

void write_header(const CodebookShape& shape, uint8_t* out) {
    const auto last_dim = static_cast<uint16_t>(shape.dim - 1);
    const auto rows = static_cast<uint32_t>(shape.rows);
    out[0] = static_cast<uint8_t>(shape.bits);
    out[1] = static_cast<uint8_t>(shape.entries - 1);
    std::memcpy(out + 2, &last_dim, sizeof(last_dim));
    std::memcpy(out + 4, &rows, sizeof(rows));
}

// Offsets of the parts of a codebook.
struct Parts {
    explicit Parts(const CodebookShape& shape)
        : row_bytes(code_bytes(shape.bits, shape.dim)),
          entry_of(kHeaderBytes + 4 * shape.entries),
          codes(entry_of + shape.rows),
          end(codes + shape.rows * row_bytes) {}

    size_t row_bytes, entry_of, codes, end;
};

// Encodes each row on the entry with the least squared error.
void write_rows(const float* rows, const CodebookShape& shape, const std::vector<uint32_t>& table, uint8_t* out) {
    const QuantizerKernels& kernels = quantizer_kernels();
    const CodeKernels& codes = code_kernels(kernels, shape.bits);
    const Parts parts(shape);
    TransposedRows transposed(shape.dim);
    LaneBatch<size_t> batch(kernels.lanes);
    const auto write = [&](const float* const* selected, const size_t* places) {
        uint32_t chosen[16], grids[16];
        uint8_t* targets[16];
        kernels.transpose(selected, shape.dim, transposed.data());
        codes.choose(transposed.data(), shape.dim, table.data(), table.size(), chosen);
        for (size_t lane = 0; lane < kernels.lanes; ++lane) {
            out[parts.entry_of + places[lane]] = static_cast<uint8_t>(chosen[lane]);
            grids[lane] = table[chosen[lane]];
            targets[lane] = out + parts.codes + places[lane] * parts.row_bytes;
        }
        codes.write(transposed.data(), shape.dim, grids, targets);
    };
    for (size_t i = 0; i < shape.rows; ++i) batch.add(rows + i * shape.dim, i, write);
    batch.finish(write);
}

bool valid(uint32_t grid) {
    const uint32_t scale = grid & 0xFFFF, offset = grid >> 16;
    return scale <= kMaxHalf && (offset & 0x7FFF) <= kMaxHalf;
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
    const CodebookShape header = {bytes[0], bytes[1] + size_t{1}, last_dim + size_t{1}, rows};
    if (header.bits != 2 && header.bits != 4 && header.bits != 8) return "of bits other than 2, 4 or 8";
    const Parts parts(header);
    if (length != parts.end) return "not as long as its header says";
    for (size_t i = 0; i < header.entries; ++i) {
        uint32_t grid;
        std::memcpy(&grid, bytes + kHeaderBytes + 4 * i, sizeof(grid));
        if (!valid(grid)) return "with an entry that is not finite or whose scale is negative";
    }
    const uint8_t* entry_of = bytes + parts.entry_of;
    if (std::any_of(entry_of, entry_of + header.rows, [&](uint8_t entry) { return entry >= header.entries; }))
        return "with a row whose entry is not in the table";
    shape = header;
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
