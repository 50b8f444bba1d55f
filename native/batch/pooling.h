// Pooling: brings the rows of a sample's keys into the columns of one field, and the gradient of these back to the rows.
//
// A field of a batch of n samples has m keys, of which u are distinct (unique.h); sample i has the keys in [offsets[i],
// offsets[i + 1]). pool() writes one vector, or the rows one after the other, to a column range of the model input.
// Training (model_input.h) and serving call the same function. Pure functions over the caller's memory, thread-safe, no
// allocation, linear cost. Sums run in the order of the samples, so the bits are the same on every machine. Fast if
// every sample has one key (the row is copied) and if dim is a multiple of 16 or 4.
//
// With rows r_1 .. r_k and weights w_1 .. w_k of a sample's keys (1 each without weights), all of TensorFlow's
// embedding_lookup_sparse:
//     sum      Σ w_j r_j
//     mean     Σ w_j r_j / Σ w_j           zeros if Σ w_j = 0
//     sqrtn    Σ w_j r_j / sqrt(Σ w_j²)    zeros if all w_j = 0
//     max      the largest r_j of each column; its gradient goes to the first j that has it, as in the EmbeddingBag of
//              PyTorch
//     none     r_1 .. r_k, zeros up to max_length rows, then max_length columns that are 1 for a key and 0 after the
//              last; these have no gradient
// A sample without keys has zeros.
//
// Call check() first, once per batch and field: it throws std::invalid_argument for invalid arguments. pool() and
// unpool() rely on it; invalid arguments would cause accesses outside the arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quantizer/rounding.h"

namespace springtide {

enum class PoolingKind : uint8_t { kSum, kMean, kSqrtN, kMax, kNone };

// How a field is pooled.
struct FieldPooling {
    PoolingKind kind = PoolingKind::kSum;
    size_t max_length = 0;  // kNone: the rows that the columns have room for; 0 for every other kind

    // The columns of a field with rows of `dim` weights.
    size_t width(size_t dim) const { return kind == PoolingKind::kNone ? max_length * (dim + 1) : dim; }
};

// The keys of one field in one batch: u distinct keys with rows of `dim` weights each.
struct Pooling {
    std::span<const int32_t> inverse;      // [m], values in [0, u)
    std::span<const int64_t> offsets;      // [n + 1], ascending from 0 to m; kNone: at most max_length keys per sample
    size_t u, dim;
    FieldPooling field;
    std::span<const float> weights = {};   // [m], or none; only for sum, mean and sqrtn
};

// Columns [start, start + width) of a matrix with `count` columns.
struct Columns {
    size_t count, start;
};

void check(const Pooling& pooling, Columns columns);

// Writes the columns of every sample to out[i * count + start ..]. Row k is at rows + k * dim, or at rows[k] for rows
// read in place from a table; a RoundedRow is rounded as it is read. `out` must not overlap the rows.
void pool(const Pooling& pooling, const float* rows, float* out, Columns columns);
void pool(const Pooling& pooling, const float* const* rows, float* out, Columns columns);
void pool(const Pooling& pooling, const RoundedRow* rows, float* out, Columns columns);

// gradients[k * dim + d] = the gradient of row k given the gradient `pooled` of the output of pool(); zeros for a row
// that no sample has. `rows` are those that were pooled; only kMax reads them. All of `gradients`, [u, dim], is written;
// it must not overlap `pooled`.
void unpool(const Pooling& pooling, const float* const* rows, const float* pooled, Columns columns, float* gradients);

// Adds the same to `gradients`: several fields may read the rows of one table. Of rounded rows it is the gradient with
// respect to the rounded values.
void add_unpooled(const Pooling& pooling, const float* const* rows, const float* pooled, Columns columns,
                  float* gradients);
void add_unpooled(const Pooling& pooling, const RoundedRow* rows, const float* pooled, Columns columns,
                  float* gradients);

// Adds to squares[k] the squared length of the gradient of row k in each sample, as unpool() has it, occurrences of a key
// within a sample apart. kMax, which gives each column to one key, counts as if every key had an equal share.
void add_squares(const Pooling& pooling, const float* pooled, Columns columns, float* squares);

}  // namespace springtide
