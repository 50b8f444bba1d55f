// Pooling: combines the rows of a sample's keys into one vector per field, and the transpose for gradients.
//
// A field of a batch of n samples has m keys, of which u are distinct (unique.h); sample i has the keys in [offsets[i],
// offsets[i + 1]). pool() writes the sum or mean of their rows to a column range of the model input. Training
// (model_input.h) and serving call the same function. Pure functions over the caller's memory, thread-safe, no
// allocation, linear cost. Sums run in the order of the samples, so the bits are the same on every machine. Fast if
// every sample has one key (the row is copied) and if dim is a multiple of 16 or 4.
//
// Call check() first, once per batch and field: it throws std::invalid_argument for invalid arguments. pool() and
// unpool() rely on it; invalid arguments would cause accesses outside the arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace springtide {

// The keys of one field in one batch: u distinct keys with rows of `dim` weights each.
struct Pooling {
    std::span<const int32_t> inverse;  // [m], values in [0, u)
    std::span<const int64_t> offsets;  // [n + 1], ascending from 0 to m
    size_t u, dim;
    bool mean;  // divide by the number of keys of the sample; a sample without keys gives zeros
};

// Columns [start, start + dim) of a matrix with `count` columns.
struct Columns {
    size_t count, start;
};

void check(const Pooling& pooling, Columns columns);

// out[i * count + start + d] = sum (or mean), over the keys j of sample i, of element d of row inverse[j]. Row k is at
// rows + k * dim, or at rows[k] for rows read in place from a table. `out` must not overlap the rows.
void pool(const Pooling& pooling, const float* rows, float* out, Columns columns);
void pool(const Pooling& pooling, const float* const* rows, float* out, Columns columns);

// gradients[k * dim + d] = the gradient of row k given the gradient `pooled` of the output of pool(); zeros for a row
// that no sample has. All of `gradients`, [u, dim], is written; it must not overlap `pooled`.
void unpool(const Pooling& pooling, const float* pooled, Columns columns, float* gradients);

// Adds the same to `gradients`: several fields may read the rows of one table.
void add_unpooled(const Pooling& pooling, const float* pooled, Columns columns, float* gradients);

}  // namespace springtide
