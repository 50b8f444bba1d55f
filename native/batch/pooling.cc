#include "batch/pooling.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace springtide {
namespace {

constexpr size_t kPrefetchDistance = 12;  // samples; they are too far apart for the hardware prefetcher

[[noreturn]] void reject(const char* what, int64_t got, const std::string& wanted) {
    throw std::invalid_argument(std::string(what) + ": got " + std::to_string(got) + ", wanted " + wanted);
}

void check_offsets(std::span<const int64_t> offsets, size_t keys) {
    const auto m = static_cast<int64_t>(keys);
    if (offsets.empty()) reject("offsets", 0, "n + 1 of them");
    if (offsets.front() != 0) reject("offsets[0]", offsets.front(), "0");
    if (offsets.back() != m) reject("last of offsets", offsets.back(), std::to_string(m) + ", the number of keys");
    bool ascending = true;  // without an early exit, so that the loop is vectorised
    for (size_t i = 0; i + 1 < offsets.size(); ++i) ascending &= offsets[i] <= offsets[i + 1];
    if (ascending) return;
    const auto descending = std::is_sorted_until(offsets.begin(), offsets.end());
    reject("offsets", *descending, "at least " + std::to_string(*(descending - 1)) + ", the previous one");
}

void check_inverse(std::span<const int32_t> inverse, size_t u) {
    const auto end = static_cast<int64_t>(u);
    int32_t min = 0, max = -1;
    for (const int32_t k : inverse) min = std::min(min, k), max = std::max(max, k);
    if (min >= 0 && max < end) return;
    const auto outside = std::find_if(inverse.begin(), inverse.end(), [&](int32_t k) { return k < 0 || k >= end; });
    reject("inverse", *outside, "0 to " + std::to_string(u) + " - 1");
}

// Whether every sample has exactly one key: offsets are 0, 1, .. n.
bool single_valued(const Pooling& pooling) {
    if (pooling.inverse.size() + 1 != pooling.offsets.size()) return false;
    int64_t differing = 0;
    for (size_t i = 0; i < pooling.offsets.size(); ++i) differing |= pooling.offsets[i] ^ static_cast<int64_t>(i);
    return differing == 0;
}

// Loops over a row in steps of a constant number of floats, which the compiler vectorises; dim is a multiple of kStep.
template <size_t kStep>
struct Row {
    static void copy(float* __restrict to, const float* __restrict from, size_t dim) {
        for (size_t at = 0; at < dim; at += kStep)
            for (size_t d = 0; d < kStep; ++d) to[at + d] = from[at + d];
    }
    static void add(float* __restrict to, const float* __restrict from, size_t dim) {
        for (size_t at = 0; at < dim; at += kStep)
            for (size_t d = 0; d < kStep; ++d) to[at + d] += from[at + d];
    }
    static void divide(float* values, float by, size_t dim) {
        for (size_t at = 0; at < dim; at += kStep)
            for (size_t d = 0; d < kStep; ++d) values[at + d] /= by;
    }
    static void add_quotient(float* __restrict to, const float* __restrict from, float by, size_t dim) {
        for (size_t at = 0; at < dim; at += kStep)
            for (size_t d = 0; d < kStep; ++d) to[at + d] += from[at + d] / by;
    }
};

// Calls work(Row<kStep>) with the largest step that divides dim.
template <class Work>
void by_step(size_t dim, Work work) {
    if (dim % 16 == 0) return work(Row<16>());
    if (dim % 4 == 0) return work(Row<4>());
    work(Row<1>());
}

template <class Step, class RowAt>
void pool_ragged(const Pooling& pooling, RowAt row_at, float* out, Columns columns) {
    const size_t dim = pooling.dim;
    for (size_t i = 0; i + 1 < pooling.offsets.size(); ++i) {
        float* target = out + i * columns.count + columns.start;
        const int64_t first = pooling.offsets[i], end = pooling.offsets[i + 1];
        if (first == end) {
            std::fill_n(target, dim, 0.0f);
            continue;
        }
        Step::copy(target, row_at(pooling.inverse[first]), dim);
        for (int64_t j = first + 1; j < end; ++j) Step::add(target, row_at(pooling.inverse[j]), dim);
        if (pooling.mean && end - first > 1) Step::divide(target, static_cast<float>(end - first), dim);
    }
}

template <class RowAt>
void pool_rows(const Pooling& pooling, RowAt row_at, float* out, Columns columns) {
    by_step(pooling.dim, [&]<class Step>(Step) {
        if (!single_valued(pooling)) return pool_ragged<Step>(pooling, row_at, out, columns);
        const std::span<const int32_t> inverse = pooling.inverse;
        float* target = out + columns.start;
        for (size_t i = 0; i < inverse.size(); ++i, target += columns.count) {
            if (i + kPrefetchDistance < inverse.size()) {
                __builtin_prefetch(row_at(inverse[i + kPrefetchDistance]));
                __builtin_prefetch(target + kPrefetchDistance * columns.count, 1);
            }
            Step::copy(target, row_at(inverse[i]), pooling.dim);
        }
    });
}

template <class Step>
void unpool_ragged(const Pooling& pooling, const float* source, Columns columns, float* gradients) {
    const size_t dim = pooling.dim;
    for (size_t i = 0; i + 1 < pooling.offsets.size(); ++i, source += columns.count) {
        const int64_t first = pooling.offsets[i], end = pooling.offsets[i + 1];
        const bool divided = pooling.mean && end - first > 1;
        for (int64_t j = first; j < end; ++j) {
            float* gradient = gradients + static_cast<size_t>(pooling.inverse[j]) * dim;
            if (divided) {
                Step::add_quotient(gradient, source, static_cast<float>(end - first), dim);
            } else {
                Step::add(gradient, source, dim);
            }
        }
    }
}

}  // namespace

void check(const Pooling& pooling, Columns columns) {
    if (columns.start > columns.count || pooling.dim > columns.count - columns.start)
        reject("start", static_cast<int64_t>(columns.start),
               "room for " + std::to_string(pooling.dim) + " of " + std::to_string(columns.count) + " columns");
    check_offsets(pooling.offsets, pooling.inverse.size());
    check_inverse(pooling.inverse, pooling.u);
}

void pool(const Pooling& pooling, const float* rows, float* out, Columns columns) {
    const size_t dim = pooling.dim;
    pool_rows(pooling, [=](int32_t k) { return rows + static_cast<size_t>(k) * dim; }, out, columns);
}

void pool(const Pooling& pooling, const float* const* rows, float* out, Columns columns) {
    pool_rows(pooling, [=](int32_t k) { return rows[k]; }, out, columns);
}

void unpool(const Pooling& pooling, const float* pooled, Columns columns, float* gradients) {
    std::fill_n(gradients, pooling.u * pooling.dim, 0.0f);
    add_unpooled(pooling, pooled, columns, gradients);
}

void add_unpooled(const Pooling& pooling, const float* pooled, Columns columns, float* gradients) {
    by_step(pooling.dim, [&]<class Step>(Step) {
        const float* source = pooled + columns.start;
        if (!single_valued(pooling)) return unpool_ragged<Step>(pooling, source, columns, gradients);
        const std::span<const int32_t> inverse = pooling.inverse;
        for (size_t i = 0; i < inverse.size(); ++i, source += columns.count) {
            if (i + kPrefetchDistance < inverse.size()) __builtin_prefetch(source + kPrefetchDistance * columns.count);
            Step::add(gradients + static_cast<size_t>(inverse[i]) * pooling.dim, source, pooling.dim);
        }
    });
}

}  // namespace springtide
