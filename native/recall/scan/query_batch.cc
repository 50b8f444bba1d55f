#include "recall/scan/query_batch.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace springtide {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// An integer above `bound` and above every rounding error in it.
int32_t rounded_up(double bound) { return static_cast<int32_t>(bound) + 2; }

double squared(double value) { return value * value; }

}  // namespace

QueryBatch::QueryBatch(const float* vectors, size_t n, size_t dim, size_t width)
    : n_(n),
      padded_(std::bit_ceil(n)),
      width_(width),
      words_(n * width),
      packed_words_(padded_ * width),
      packed_upper_(padded_ * width),
      packed_lower_(padded_ * width) {
    const VectorCodeKernels& kernels = simd::at_level([](auto level) -> auto& { return vector_code_kernels(level); });
    std::vector<float> vector(width);
    std::vector<int8_t> upper(width), lower(width);
    for (ScanQuery& query : queries_) query.threshold = kInfinity;
    for (size_t q = 0; q < n; ++q) {
        std::copy_n(vectors + q * dim, dim, vector.data());
        bounds_[q].scale = kernels.encode(vector.data(), width, upper.data(), lower.data()).scale;
        add(q, upper.data(), lower.data());
    }
}

void QueryBatch::add(size_t q, const int8_t* upper, const int8_t* lower) {
    Bounds& bounds = bounds_[q];
    for (size_t i = 0; i < width_; ++i) {
        const int word = 256 * upper[i] + lower[i];
        const size_t at = (i / 4 * padded_ + q) * 4 + i % 4;
        words_[q * width_ + i] = packed_words_[at] = static_cast<int16_t>(word);
        packed_upper_[at] = upper[i];
        packed_lower_[at] = lower[i];
        queries_[q].upper_sum += upper[i];
        queries_[q].lower_sum += lower[i];
        bounds.word_magnitudes += std::abs(word);
        bounds.word_length += squared(word);
        bounds.lower_magnitudes += std::abs(lower[i]);
        bounds.lower_length += squared(lower[i]);
    }
    bounds.word_length = std::sqrt(bounds.word_length);
    bounds.lower_length = std::sqrt(bounds.lower_length);
}

// A product is bounded by the largest code times the sum of magnitudes, and by the lengths (Cauchy and Schwarz).
void QueryBatch::fit(const ItemSegment& segment) {
    for (size_t q = 0; q < n_; ++q) {
        const Bounds& bounds = bounds_[q];
        const double lower_codes =
            std::min(128 * bounds.word_magnitudes, segment.lower_length() * bounds.word_length);
        const double lower_bytes =
            std::min(127 * bounds.lower_magnitudes, segment.upper_length() * bounds.lower_length);
        queries_[q].slack = rounded_up(lower_codes / 256);
        queries_[q].upper_slack = rounded_up((lower_bytes + queries_[q].slack) / 256);
    }
}

// The margin exceeds the relative errors of a score (two roundings to double, one to float), of the division here, and
// of the two roundings to float in the comparison of the scan.
float QueryBatch::threshold(size_t q, float least) const {
    constexpr double kMargin = 0x1p-20;
    if (bounds_[q].scale == 0 || std::isinf(least)) return -kInfinity;
    const double exact = least / (256 * bounds_[q].scale);
    return static_cast<float>(exact - std::abs(exact) * kMargin);
}

}  // namespace springtide
