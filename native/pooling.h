// Pooling: from the keys of a batch to one vector per sample and field, and the gradient's way back.
//
// A field of a batch of n samples has m keys, sample i those in [offsets[i], offsets[i + 1]). unique() leaves u distinct
// ones; pool() sums or averages their rows into a column range of the model's input; unpool() is its exact transpose.
// Pure functions, safe from any thread; sums run in the order of the samples, so results are the same everywhere.
// Throws std::invalid_argument for offsets or indices that do not fit, before anything is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace freshet {

struct Unique {
    std::vector<uint64_t> keys;    // [u] in order of first appearance
    std::vector<int32_t> inverse;  // [m] keys[inverse[j]] is the j-th input
    std::vector<uint32_t> counts;  // [u] how often
};

// Distinct keys of fewer than 2^31. Expected linear time.
Unique unique(std::span<const uint64_t> keys);

// Where the rows of one field's keys go: `inverse` and `offsets` as above, u distinct keys of `dim` weights each.
struct Pooling {
    std::span<const int32_t> inverse;  // [m], values in [0, u)
    std::span<const int64_t> offsets;  // [n + 1], ascending from 0 to m
    size_t u, dim;
    bool mean;  // divide by the sample's number of keys; no key gives zeros
};

// out[i * columns + start + d] = sum (or mean) of rows[inverse[j] * dim + d] over the keys j of sample i.
void pool(const Pooling& pooling, const float* rows, float* out, size_t columns, size_t start);

// gradients[k * dim + d] = what the pooled gradient says of row k: the transpose of pool(). `gradients` is [u, dim].
void unpool(const Pooling& pooling, const float* pooled, size_t columns, size_t start, float* gradients);

}  // namespace freshet
