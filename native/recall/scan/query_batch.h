// QueryBatch: up to eight queries as scans read them, with bounds of what the upper codes of items leave open.
//
// The score of an item for a query is (256 * P + R) * item scale * query scale in double, rounded to float: P is the
// product of the item's upper codes with the words of the query, R that of its lower codes, both exact integers.
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "recall/scan/item_segment.h"

namespace springtide {

class QueryBatch {
public:
    // vectors: [n, dim], codable (simd/kernels/recall/vector_codes.h); 1 <= n <= kScanQueries. `width` as of the items.
    QueryBatch(const float* vectors, size_t n, size_t dim, size_t width);

    size_t size() const { return n_; }
    size_t width() const { return width_; }

    // For a scan. Every query has the threshold infinity until one is set.
    ScanBatch scan() { return {packed_words_.data(), packed_upper_.data(), packed_lower_.data(), queries_, padded_}; }
    ScanQuery& query(size_t q) { return queries_[q]; }

    // Sets the slacks of all queries for the items of a segment.
    void fit(const ItemSegment& segment);

    // The words of a query, [width].
    const int16_t* words(size_t q) const { return words_.data() + q * width_; }

    float score(size_t q, double product, float item_scale) const {
        return static_cast<float>(product * item_scale * bounds_[q].scale);
    }

    // The threshold at which no item with a score of at least `least` is lost, whatever is rounded.
    float threshold(size_t q, float least) const;

private:
    // Of the codes of one query.
    struct Bounds {
        double scale = 0;
        double word_magnitudes = 0, word_length = 0, lower_magnitudes = 0, lower_length = 0;
    };

    void add(size_t q, const int8_t* upper, const int8_t* lower);

    size_t n_, padded_, width_;  // padded_: n_ rounded up to a power of two
    std::vector<int16_t> words_, packed_words_;
    std::vector<int8_t> packed_upper_, packed_lower_;
    ScanQuery queries_[kScanQueries] = {};
    Bounds bounds_[kScanQueries] = {};
};

}  // namespace springtide
