// Balanced clusters of vectors: a range of items is halved again and again across the direction in which it varies most.
//
// The direction is that of the largest variance of up to 1,024 items of the range, found by power iteration. The items
// below the median of their products with it form one half, of equal products those with the lower places.
//
// Deterministic: the same vectors in the same order give the same clusters, at every SIMD level.
// Cost: for each halving a product per item: n * dim * log2(clusters) in all. Threads: one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

// Vectors, [n, dim], of which a range of places is clustered.
struct VectorRows {
    const float* at;
    size_t dim;

    const float* operator[](uint32_t place) const { return at + place * dim; }
};

// Orders places so that each of `count` clusters, 1 <= count, is a run of them; appends the end of each run to `ends`,
// counted from `first`. Sizes differ by at most one for each halving; a cluster is empty if there are fewer places.
void cluster(const VectorRows& vectors, std::span<uint32_t> places, size_t count, size_t first,
             std::vector<size_t>& ends);

// The squared distance of two vectors, summed in an order that depends on dim alone.
float squared_distance(const float* a, const float* b, size_t dim);

// Writes the mean of the vectors at `places` to out, [dim]; zeros if there are none.
void mean_of(const VectorRows& vectors, std::span<const uint32_t> places, float* out);

}  // namespace springtide
