// Pooling: from the rows of a batch's keys to one vector per sample and field, and the gradient's way back.
//
// A field of a batch of n samples has m keys, sample i those in [offsets[i], offsets[i + 1]); u of them are distinct
// (unique.h). pool() sums or averages their rows into a column range of the model's input; unpool() is its transpose.
// Pure functions over the caller's memory, safe from any thread, no allocation, linear cost. Sums run in the order of the
// samples, so their bits are the same on every machine. Fast where every sample has one key (its row is copied) and
// where dim is a multiple of 16, or of 4.
//
// check() comes first, once per batch and field: it throws std::invalid_argument for what does not fit. pool() and
// unpool() take its word; given anything else they read and write where they must not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace springtide {

// Where the rows of one field's keys go: u distinct keys of `dim` weights each.
struct Pooling {
    std::span<const int32_t> inverse;  // [m], values in [0, u)
    std::span<const int64_t> offsets;  // [n + 1], ascending from 0 to m
    size_t u, dim;
    bool mean;  // divide by the sample's number of keys; no key gives zeros
};

// Columns start .. start + dim of a matrix with so many.
struct Columns {
    size_t count, start;
};

void check(const Pooling& pooling, Columns columns);

// out[i * count + start + d] = sum (or mean) over the keys j of sample i of row inverse[j]: rows[inverse[j] * dim + d],
// or rows[inverse[j]][d] where the rows stay where the table has them. `out` must not overlap the rows.
void pool(const Pooling& pooling, const float* rows, float* out, Columns columns);
void pool(const Pooling& pooling, const float* const* rows, float* out, Columns columns);

// gradients[k * dim + d] = what the pooled gradient says of row k, zeros where no sample has it. `gradients` is [u, dim],
// written in full, and must not overlap `pooled`.
void unpool(const Pooling& pooling, const float* pooled, Columns columns, float* gradients);

}  // namespace springtide
