#include "batch/pooling.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "table/fixed_dim.h"
#include "table/optimizers/dot.h"

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

void check_columns(const Pooling& pooling, Columns columns) {
    const size_t room = columns.start <= columns.count ? columns.count - columns.start : 0;
    const size_t length = pooling.field.kind == PoolingKind::kNone ? pooling.field.max_length : 1;
    const size_t width = pooling.field.kind == PoolingKind::kNone ? pooling.dim + 1 : pooling.dim;  // per element
    if (columns.start <= columns.count && (length == 0 || width <= room / length)) return;
    reject("start", static_cast<int64_t>(columns.start),
           "room for " + std::to_string(length) + " x " + std::to_string(width) + " of " +
               std::to_string(columns.count) + " columns");
}

// After check_offsets().
void check_kind(const Pooling& pooling) {
    const auto [kind, max_length] = pooling.field;
    if (!pooling.weights.empty()) {
        if (kind == PoolingKind::kMax || kind == PoolingKind::kNone)
            reject("weights", static_cast<int64_t>(pooling.weights.size()), "none for pooling max and none");
        if (pooling.weights.size() != pooling.inverse.size())
            reject("weights", static_cast<int64_t>(pooling.weights.size()),
                   std::to_string(pooling.inverse.size()) + ", one for each key");
    }
    if (kind != PoolingKind::kNone) {
        if (max_length != 0) reject("max_length", static_cast<int64_t>(max_length), "0: only pooling none has one");
        return;
    }
    if (max_length == 0) reject("max_length", 0, "1 or more");
    int64_t longest = 0;
    for (size_t i = 0; i + 1 < pooling.offsets.size(); ++i)
        longest = std::max(longest, pooling.offsets[i + 1] - pooling.offsets[i]);
    if (static_cast<uint64_t>(longest) > max_length)
        reject("keys of a sample", longest, "at most " + std::to_string(max_length));
}

// Whether every sample has exactly one key: offsets are 0, 1, .. n.
bool single_valued(const Pooling& pooling) {
    if (pooling.inverse.size() + 1 != pooling.offsets.size()) return false;
    int64_t differing = 0;
    for (size_t i = 0; i < pooling.offsets.size(); ++i) differing |= pooling.offsets[i] ^ static_cast<int64_t>(i);
    return differing == 0;
}

// What a row's columns are made of: the weights themselves, or each weight on the grid of its row.
struct GridValues {
    const float* weights;
    RowGrid grid;

    float operator[](size_t i) const { return grid.value_of(weights[i]); }
};

// Calls work with the values of a row, an array or what is indexed like one.
template <class Work>
void with_values(const float* row, Work work) {
    work(row);
}
template <class Work>
void with_values(const RoundedRow& row, Work work) {
    if (row.grid.step == 0) work(row.weights);
    else work(GridValues{row.weights, row.grid});
}

const float* weights_of(const float* row) { return row; }
const float* weights_of(const RoundedRow& row) { return row.weights; }

float value_of(const float* row, size_t i) { return row[i]; }
float value_of(const RoundedRow& row, size_t i) {
    return row.grid.step == 0 ? row.weights[i] : row.grid.value_of(row.weights[i]);
}

// Loops over a row in steps of a constant number of floats, which the compiler vectorises; dim is a multiple of kStep.
template <size_t kStep>
struct Row {
    template <class Values>
    static void copy(float* __restrict to, Values from, size_t dim) {
        for (size_t at = 0; at < dim; at += kStep)
            for (size_t d = 0; d < kStep; ++d) to[at + d] = from[at + d];
    }
    template <class Values>
    static void add(float* __restrict to, Values from, size_t dim) {
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
    template <class Values>
    static void add_product(float* __restrict to, Values from, float by, size_t dim) {
        for (size_t at = 0; at < dim; at += kStep)
            for (size_t d = 0; d < kStep; ++d) to[at + d] += from[at + d] * by;
    }
    template <class Values>
    static void raise(float* __restrict to, Values from, size_t dim) {
        for (size_t at = 0; at < dim; at += kStep)
            for (size_t d = 0; d < kStep; ++d) to[at + d] = from[at + d] > to[at + d] ? from[at + d] : to[at + d];
    }
};

// Calls work(Row<kStep>) with the largest step that divides dim.
template <class Work>
void by_step(size_t dim, Work work) {
    if (dim % 16 == 0) return work(Row<16>());
    if (dim % 4 == 0) return work(Row<4>());
    work(Row<1>());
}

// What the sum of n rows without weights is divided by.
float divisor_of(PoolingKind kind, int64_t n) {
    if (kind == PoolingKind::kMean) return static_cast<float>(n);
    return kind == PoolingKind::kSqrtN ? std::sqrt(static_cast<float>(n)) : 1.0f;
}

// What a sample's row of weight w is multiplied by. In double precision, so that squares do not overflow.
class Share {
public:
    Share(PoolingKind kind, std::span<const float> weights) {
        if (kind == PoolingKind::kSum) return;
        divisor_ = 0;
        for (const double w : weights) divisor_ += kind == PoolingKind::kMean ? w : w * w;
        if (kind == PoolingKind::kSqrtN) divisor_ = std::sqrt(divisor_);
    }
    float of(float weight) const { return divisor_ == 0 ? 0.0f : static_cast<float>(weight / divisor_); }

private:
    double divisor_ = 1;
};

// The keys of one sample.
struct Range {
    int64_t first, end;
    size_t size() const { return static_cast<size_t>(end - first); }
};

template <class Step, class RowAt>
void pool_one(const Pooling& pooling, RowAt row_at, Range keys, float* target) {
    const size_t dim = pooling.dim;
    const auto each = [&](int64_t j, auto work) { with_values(row_at(pooling.inverse[j]), work); };
    each(keys.first, [&](auto row) { Step::copy(target, row, dim); });
    if (pooling.field.kind == PoolingKind::kMax) {
        for (int64_t j = keys.first + 1; j < keys.end; ++j) each(j, [&](auto row) { Step::raise(target, row, dim); });
        return;
    }
    for (int64_t j = keys.first + 1; j < keys.end; ++j) each(j, [&](auto row) { Step::add(target, row, dim); });
    const float divisor = divisor_of(pooling.field.kind, keys.end - keys.first);
    if (divisor != 1.0f) Step::divide(target, divisor, dim);
}

template <class Step, class RowAt>
void pool_weighted(const Pooling& pooling, RowAt row_at, Range keys, float* target) {
    const Share share(pooling.field.kind, pooling.weights.subspan(keys.first, keys.size()));
    std::fill_n(target, pooling.dim, 0.0f);
    for (int64_t j = keys.first; j < keys.end; ++j)
        with_values(row_at(pooling.inverse[j]), [&](auto row) {
            Step::add_product(target, row, share.of(pooling.weights[j]), pooling.dim);
        });
}

template <class Step, class RowAt>
void lay_out(const Pooling& pooling, RowAt row_at, Range keys, float* target) {
    const size_t dim = pooling.dim, length = pooling.field.max_length, n = keys.size();
    for (size_t e = 0; e < n; ++e)
        with_values(row_at(pooling.inverse[keys.first + e]), [&](auto row) { Step::copy(target + e * dim, row, dim); });
    std::fill_n(target + n * dim, (length - n) * dim, 0.0f);
    std::fill_n(target + length * dim, n, 1.0f);
    std::fill_n(target + length * dim + n, length - n, 0.0f);
}

template <class Step, class RowAt>
void pool_ragged(const Pooling& pooling, RowAt row_at, float* out, Columns columns) {
    for (size_t i = 0; i + 1 < pooling.offsets.size(); ++i) {
        float* target = out + i * columns.count + columns.start;
        const Range keys{pooling.offsets[i], pooling.offsets[i + 1]};
        if (pooling.field.kind == PoolingKind::kNone) {
            lay_out<Step>(pooling, row_at, keys, target);
        } else if (keys.first == keys.end) {
            std::fill_n(target, pooling.dim, 0.0f);
        } else if (pooling.weights.empty()) {
            pool_one<Step>(pooling, row_at, keys, target);
        } else {
            pool_weighted<Step>(pooling, row_at, keys, target);
        }
    }
}

// Whether each sample's columns are the row of its only key.
bool copies_rows(const Pooling& pooling) {
    return pooling.field.kind != PoolingKind::kNone && pooling.weights.empty() && single_valued(pooling);
}

template <class RowAt>
void pool_rows(const Pooling& pooling, RowAt row_at, float* out, Columns columns) {
    by_step(pooling.dim, [&]<class Step>(Step) {
        if (!copies_rows(pooling)) return pool_ragged<Step>(pooling, row_at, out, columns);
        const std::span<const int32_t> inverse = pooling.inverse;
        float* target = out + columns.start;
        for (size_t i = 0; i < inverse.size(); ++i, target += columns.count) {
            if (i + kPrefetchDistance < inverse.size()) {
                __builtin_prefetch(weights_of(row_at(inverse[i + kPrefetchDistance])));
                __builtin_prefetch(target + kPrefetchDistance * columns.count, 1);
            }
            with_values(row_at(inverse[i]), [&](auto row) { Step::copy(target, row, pooling.dim); });
        }
    });
}

template <class Step>
void unpool_sum(const Pooling& pooling, Range keys, const float* source, float* gradients) {
    const size_t dim = pooling.dim;
    const float divisor = divisor_of(pooling.field.kind, keys.end - keys.first);
    for (int64_t j = keys.first; j < keys.end; ++j) {
        float* gradient = gradients + static_cast<size_t>(pooling.inverse[j]) * dim;
        if (divisor != 1.0f) {
            Step::add_quotient(gradient, source, divisor, dim);
        } else {
            Step::add(gradient, source, dim);
        }
    }
}

template <class Step>
void unpool_weighted(const Pooling& pooling, Range keys, const float* source, float* gradients) {
    const Share share(pooling.field.kind, pooling.weights.subspan(keys.first, keys.size()));
    for (int64_t j = keys.first; j < keys.end; ++j)
        Step::add_product(gradients + static_cast<size_t>(pooling.inverse[j]) * pooling.dim, source,
                          share.of(pooling.weights[j]), pooling.dim);
}

template <class Rows>
void unpool_max(const Pooling& pooling, Rows rows, Range keys, const float* source, float* gradients) {
    for (size_t d = 0; d < pooling.dim; ++d) {
        int32_t largest = pooling.inverse[keys.first];
        for (int64_t j = keys.first + 1; j < keys.end; ++j)
            if (value_of(rows[pooling.inverse[j]], d) > value_of(rows[largest], d)) largest = pooling.inverse[j];
        gradients[static_cast<size_t>(largest) * pooling.dim + d] += source[d];
    }
}

template <class Step>
void unpool_each(const Pooling& pooling, Range keys, const float* source, float* gradients) {
    const size_t dim = pooling.dim;
    for (int64_t j = keys.first; j < keys.end; ++j, source += dim)
        Step::add(gradients + static_cast<size_t>(pooling.inverse[j]) * dim, source, dim);
}

template <class Step, class Rows>
void unpool_ragged(const Pooling& pooling, Rows rows, const float* source, Columns columns, float* gradients) {
    for (size_t i = 0; i + 1 < pooling.offsets.size(); ++i, source += columns.count) {
        const Range keys{pooling.offsets[i], pooling.offsets[i + 1]};
        if (keys.first == keys.end) continue;
        if (pooling.field.kind == PoolingKind::kNone) {
            unpool_each<Step>(pooling, keys, source, gradients);
        } else if (pooling.field.kind == PoolingKind::kMax) {
            unpool_max(pooling, rows, keys, source, gradients);
        } else if (pooling.weights.empty()) {
            unpool_sum<Step>(pooling, keys, source, gradients);
        } else {
            unpool_weighted<Step>(pooling, keys, source, gradients);
        }
    }
}

template <class Rows>
void unpool_rows(const Pooling& pooling, Rows rows, const float* pooled, Columns columns, float* gradients) {
    by_step(pooling.dim, [&]<class Step>(Step) {
        const float* source = pooled + columns.start;
        if (!copies_rows(pooling)) return unpool_ragged<Step>(pooling, rows, source, columns, gradients);
        const std::span<const int32_t> inverse = pooling.inverse;
        for (size_t i = 0; i < inverse.size(); ++i, source += columns.count) {
            if (i + kPrefetchDistance < inverse.size()) __builtin_prefetch(source + kPrefetchDistance * columns.count);
            Step::add(gradients + static_cast<size_t>(inverse[i]) * pooling.dim, source, pooling.dim);
        }
    });
}

// The squares of one sample, whose gradient is `source`.
void add_sample_squares(const Pooling& pooling, Range keys, const float* source, float* squares) {
    const size_t dim = pooling.dim, n = keys.size();
    const auto add = [&](int64_t j, float square) { squares[pooling.inverse[j]] += square; };
    if (pooling.field.kind == PoolingKind::kNone) {
        for (int64_t j = keys.first; j < keys.end; ++j, source += dim) add(j, dot(source, source, dim));
        return;
    }
    const float square = dot(source, source, dim);
    if (pooling.field.kind == PoolingKind::kMax) {
        for (int64_t j = keys.first; j < keys.end; ++j) add(j, square / static_cast<float>(n));
    } else if (pooling.weights.empty()) {
        const float divisor = divisor_of(pooling.field.kind, keys.end - keys.first);
        for (int64_t j = keys.first; j < keys.end; ++j) add(j, square / (divisor * divisor));
    } else {
        const Share share(pooling.field.kind, pooling.weights.subspan(keys.first, n));
        for (int64_t j = keys.first; j < keys.end; ++j) {
            const float part = share.of(pooling.weights[j]);
            add(j, square * part * part);
        }
    }
}

}  // namespace

void check(const Pooling& pooling, Columns columns) {
    check_columns(pooling, columns);
    check_offsets(pooling.offsets, pooling.inverse.size());
    check_inverse(pooling.inverse, pooling.u);
    check_kind(pooling);
}

void pool(const Pooling& pooling, const float* rows, float* out, Columns columns) {
    const size_t dim = pooling.dim;
    pool_rows(pooling, [=](int32_t k) { return rows + static_cast<size_t>(k) * dim; }, out, columns);
}

void pool(const Pooling& pooling, const float* const* rows, float* out, Columns columns) {
    pool_rows(pooling, [=](int32_t k) { return rows[k]; }, out, columns);
}

void pool(const Pooling& pooling, const RoundedRow* rows, float* out, Columns columns) {
    pool_rows(pooling, [=](int32_t k) -> const RoundedRow& { return rows[k]; }, out, columns);
}

void unpool(const Pooling& pooling, const float* const* rows, const float* pooled, Columns columns, float* gradients) {
    std::fill_n(gradients, pooling.u * pooling.dim, 0.0f);
    add_unpooled(pooling, rows, pooled, columns, gradients);
}

void add_unpooled(const Pooling& pooling, const float* const* rows, const float* pooled, Columns columns,
                  float* gradients) {
    unpool_rows(pooling, rows, pooled, columns, gradients);
}

void add_unpooled(const Pooling& pooling, const RoundedRow* rows, const float* pooled, Columns columns,
                  float* gradients) {
    unpool_rows(pooling, rows, pooled, columns, gradients);
}

void add_squares(const Pooling& pooling, const float* pooled, Columns columns, float* squares) {
    const float* source = pooled + columns.start;
    if (copies_rows(pooling)) {
        with_dim(pooling.dim, [&](auto dim) {
            for (const int32_t k : pooling.inverse) {
                squares[k] += dot(source, source, dim);
                source += columns.count;
            }
        });
        return;
    }
    for (size_t i = 0; i + 1 < pooling.offsets.size(); ++i, source += columns.count) {
        const Range keys{pooling.offsets[i], pooling.offsets[i + 1]};
        if (keys.first < keys.end) add_sample_squares(pooling, keys, source, squares);
    }
}

}  // namespace springtide
