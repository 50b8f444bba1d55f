// Pooling without Python: every kind and its transpose compared with plain loops for every code path, and invalid
// arguments. Run under the sanitizers.
#include "batch/pooling.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/expect.h"

namespace {

using springtide::Columns;
using springtide::FieldPooling;
using springtide::Pooling;
using springtide::PoolingKind;

constexpr size_t kMost = 5;  // keys of a sample
const std::vector<FieldPooling> kPoolings = {{PoolingKind::kSum},
                                             {PoolingKind::kMean},
                                             {PoolingKind::kSqrtN},
                                             {PoolingKind::kMax},
                                             {PoolingKind::kNone, kMost},
                                             {PoolingKind::kNone, kMost + 2}};

// A random batch in arrays of exact size.
struct Batch {
    std::vector<int64_t> offsets{0};
    std::vector<int32_t> inverse;
    std::vector<float> rows, weights;
    size_t u, dim;

    Batch(std::mt19937_64& random, bool single, size_t dim, bool weighted) : u(1 + random() % 9), dim(dim) {
        const size_t n = random() % 20;
        for (size_t i = 0; i < n; ++i)
            offsets.push_back(offsets.back() + (single ? 1 : static_cast<int64_t>(random() % (kMost + 1))));
        for (int64_t j = 0; j < offsets.back(); ++j) inverse.push_back(static_cast<int32_t>(random() % u));
        rows = floats(random, u * dim);
        for (float& value : rows) value = std::round(value * 2);  // equal values, so that maxima have ties
        if (weighted) weights = floats(random, inverse.size());
    }

    static std::vector<float> floats(std::mt19937_64& random, size_t n) {
        std::vector<float> values(n);
        for (float& value : values) value = std::normal_distribution<float>()(random);
        return values;
    }

    size_t samples() const { return offsets.size() - 1; }
    Pooling pooling(FieldPooling field) const { return {inverse, offsets, u, dim, field, weights}; }
    float at(int64_t j, size_t d) const { return rows[static_cast<size_t>(inverse[j]) * dim + d]; }
    std::vector<const float*> pointers() const {
        std::vector<const float*> pointers;
        for (size_t k = 0; k < u; ++k) pointers.push_back(rows.data() + k * dim);
        return pointers;
    }
};

// What the row of key j of sample i is multiplied by, with weights.
float share_of(const Batch& batch, PoolingKind kind, size_t i, int64_t j) {
    double divisor = 0;
    for (int64_t k = batch.offsets[i]; k < batch.offsets[i + 1]; ++k) {
        const double weight = batch.weights[k];
        divisor += kind == PoolingKind::kMean ? weight : weight * weight;
    }
    if (kind == PoolingKind::kSum) divisor = 1;
    if (kind == PoolingKind::kSqrtN) divisor = std::sqrt(divisor);
    return divisor == 0 ? 0.0f : static_cast<float>(batch.weights[j] / divisor);
}

float divisor_of(const Batch& batch, PoolingKind kind, size_t i) {
    const auto n = static_cast<float>(batch.offsets[i + 1] - batch.offsets[i]);
    return kind == PoolingKind::kMean ? n : kind == PoolingKind::kSqrtN ? std::sqrt(n) : 1.0f;
}

// The first key of sample i with the largest value of column d.
int64_t largest_of(const Batch& batch, size_t i, size_t d) {
    int64_t largest = batch.offsets[i];
    for (int64_t j = largest; j < batch.offsets[i + 1]; ++j)
        if (batch.at(j, d) > batch.at(largest, d)) largest = j;
    return largest;
}

// The specification of pool(), one float at a time.
float pooled_at(const Batch& batch, FieldPooling field, size_t i, size_t column) {
    const int64_t first = batch.offsets[i], end = batch.offsets[i + 1];
    const auto n = static_cast<size_t>(end - first);
    if (field.kind == PoolingKind::kNone) {
        const size_t element = column / batch.dim;
        if (column >= field.max_length * batch.dim) return column - field.max_length * batch.dim < n ? 1.0f : 0.0f;
        return element < n ? batch.at(first + static_cast<int64_t>(element), column % batch.dim) : 0.0f;
    }
    if (n == 0) return 0;
    if (field.kind == PoolingKind::kMax) return batch.at(largest_of(batch, i, column), column);
    float sum = 0;
    for (int64_t j = first; j < end; ++j)
        sum += batch.weights.empty() ? batch.at(j, column) : batch.at(j, column) * share_of(batch, field.kind, i, j);
    return batch.weights.empty() ? sum / divisor_of(batch, field.kind, i) : sum;
}

// The part of row inverse[j]'s gradient that key j of sample i brings.
float part_of(const Batch& batch, FieldPooling field, size_t i, int64_t j, size_t d, const float* source) {
    if (field.kind == PoolingKind::kNone) return source[static_cast<size_t>(j - batch.offsets[i]) * batch.dim + d];
    if (field.kind == PoolingKind::kMax) return largest_of(batch, i, d) == j ? source[d] : 0.0f;
    return batch.weights.empty() ? source[d] / divisor_of(batch, field.kind, i)
                                 : source[d] * share_of(batch, field.kind, i, j);
}

float unpooled_at(const Batch& batch, FieldPooling field, const std::vector<float>& pooled, Columns columns, size_t k,
                  size_t d) {
    float sum = 0;
    for (size_t i = 0; i < batch.samples(); ++i)
        for (int64_t j = batch.offsets[i]; j < batch.offsets[i + 1]; ++j)
            if (static_cast<size_t>(batch.inverse[j]) == k)
                sum += part_of(batch, field, i, j, d, pooled.data() + i * columns.count + columns.start);
    return sum;
}

void expect_pooled(const Batch& batch, FieldPooling field, Columns columns) {
    std::vector<float> out(batch.samples() * columns.count, 7), from_pointers = out;
    springtide::check(batch.pooling(field), columns);
    springtide::pool(batch.pooling(field), batch.rows.data(), out.data(), columns);
    springtide::pool(batch.pooling(field), batch.pointers().data(), from_pointers.data(), columns);
    expect(out == from_pointers, "rows by pointer");
    for (size_t i = 0; i < batch.samples(); ++i)
        for (size_t c = 0; c < columns.count; ++c) {
            const bool inside = c >= columns.start && c < columns.start + field.width(batch.dim);
            const float wanted = inside ? pooled_at(batch, field, i, c - columns.start) : 7;
            expect(out[i * columns.count + c] == wanted, "pooled");
        }
}

void expect_unpooled(const Batch& batch, FieldPooling field, Columns columns, const std::vector<float>& pooled) {
    std::vector<float> gradients(batch.u * batch.dim, 7);
    springtide::unpool(batch.pooling(field), batch.pointers().data(), pooled.data(), columns, gradients.data());
    for (size_t k = 0; k < batch.u; ++k)
        for (size_t d = 0; d < batch.dim; ++d)
            expect(gradients[k * batch.dim + d] == unpooled_at(batch, field, pooled, columns, k, d), "unpooled");
}

void expect_squares(const Batch& batch, FieldPooling field, Columns columns, const std::vector<float>& pooled) {
    std::vector<float> squares(batch.u, 0);
    std::vector<double> wanted(batch.u, 0);
    springtide::add_squares(batch.pooling(field), pooled.data(), columns, squares.data());
    for (size_t i = 0; i < batch.samples(); ++i)
        for (int64_t j = batch.offsets[i]; j < batch.offsets[i + 1]; ++j)
            for (size_t d = 0; d < batch.dim; ++d) {
                const float* const source = pooled.data() + i * columns.count + columns.start;
                const auto n = static_cast<double>(batch.offsets[i + 1] - batch.offsets[i]);
                const bool shared = field.kind == PoolingKind::kMax;
                const double part = shared ? source[d] / std::sqrt(n) : part_of(batch, field, i, j, d, source);
                wanted[static_cast<size_t>(batch.inverse[j])] += part * part;
            }
    for (size_t k = 0; k < batch.u; ++k) {
        const double difference = std::abs(squares[k] - wanted[k]);
        expect(difference <= 1e-4 * wanted[k] + 1e-6, "squares");
    }
}

// Rows rounded as they are read, some of them not, give the same as rounded copies.
void expect_read_rounded(const Batch& batch, FieldPooling field, Columns columns, const std::vector<float>& gradient) {
    Batch copies = batch;
    std::vector<springtide::RoundedRow> rows;
    for (size_t k = 0; k < batch.u; ++k) {
        const float* row = batch.rows.data() + k * batch.dim;
        const auto rounding = static_cast<springtide::Rounding>(k % springtide::kRoundings);
        rows.push_back({row, springtide::grid_of(row, batch.dim, rounding)});
        for (size_t d = 0; d < batch.dim && rounding != springtide::Rounding::none; ++d)
            copies.rows[k * batch.dim + d] = rows[k].grid.value_of(row[d]);
    }
    std::vector<float> out(batch.samples() * columns.count, 7), wanted = out;
    springtide::pool(batch.pooling(field), rows.data(), out.data(), columns);
    springtide::pool(batch.pooling(field), copies.rows.data(), wanted.data(), columns);
    expect(out == wanted, "rounded rows");
    std::vector<float> gradients(batch.u * batch.dim), wanted_gradients = gradients;
    springtide::add_unpooled(batch.pooling(field), rows.data(), gradient.data(), columns, gradients.data());
    springtide::unpool(batch.pooling(field), copies.pointers().data(), gradient.data(), columns,
                       wanted_gradients.data());
    expect(gradients == wanted_gradients, "gradients of rounded rows");
}

bool takes_weights(FieldPooling field) { return field.kind != PoolingKind::kMax && field.kind != PoolingKind::kNone; }

// Bit-identical: fast paths add the same floats in the same order.
void every_path_gives_the_bits_of_the_plain_loop() {
    std::mt19937_64 random(1);
    for (int round = 0; round < 20; ++round)
        for (const size_t dim : {1, 3, 4, 12, 16, 17, 32, 48})
            for (const bool single : {false, true})
                for (const bool weighted : {false, true})
                    for (const FieldPooling field : kPoolings) {
                        if (weighted && !takes_weights(field)) continue;
                        const Batch batch(random, single, dim, weighted);
                        const size_t width = field.width(dim);
                        const Columns columns{width + random() % 3, 0};
                        const Columns moved{columns.count, random() % (columns.count - width + 1)};
                        expect_pooled(batch, field, moved);
                        const auto gradient = Batch::floats(random, batch.samples() * columns.count);
                        expect_unpooled(batch, field, moved, gradient);
                        expect_read_rounded(batch, field, moved, gradient);
                        expect_squares(batch, field, moved, gradient);
                    }
}

void equal_numbers_of_keys_and_samples_need_not_be_one_key_each() {
    const std::vector<int32_t> inverse = {0, 1};
    const std::vector<int64_t> offsets = {0, 2, 2};
    const std::vector<float> rows = {1, 2};
    std::vector<float> out(2, 7);
    springtide::pool({inverse, offsets, 2, 1, {}}, rows.data(), out.data(), {1, 0});
    expect(out == std::vector<float>{3, 0}, "a sample with two keys and one without");
}

void pool_and_unpool_are_transposes() {
    const std::vector<int32_t> inverse = {0, 1, 1, 1, 2, 0};
    const std::vector<int64_t> offsets = {0, 2, 2, 6};  // samples of 2, 0 and 4 keys: means of whole numbers are exact
    const std::vector<float> rows = {1, 2, 3, 4, 5, 6}, pooled_gradient = {9, 1, -2, 9, 3, 4, 9, -5, 8};
    for (const PoolingKind kind : {PoolingKind::kSum, PoolingKind::kMean}) {
        const Pooling pooling{inverse, offsets, 3, 2, {kind}};
        std::vector<float> out(9, 7), back(6);
        springtide::pool(pooling, rows.data(), out.data(), {3, 1});
        springtide::unpool(pooling, nullptr, pooled_gradient.data(), {3, 1}, back.data());
        float forward = 0, backward = 0;
        for (size_t i = 0; i < 9; ++i) forward += i % 3 == 0 ? 0 : out[i] * pooled_gradient[i];
        for (size_t i = 0; i < 6; ++i) backward += rows[i] * back[i];
        expect(forward == backward, "transpose");
    }
}

void the_gradient_of_a_maximum_goes_to_the_first_key_that_has_it() {
    const std::vector<int32_t> inverse = {2, 0, 1, 1};
    const std::vector<int64_t> offsets = {0, 3, 4};
    const std::vector<float> rows = {5, 1, 5, 2, 4, 2}, source = {10, 20, 30, 40};
    const Pooling pooling{inverse, offsets, 3, 2, {PoolingKind::kMax}};
    const float* pointers[] = {&rows[0], &rows[2], &rows[4]};
    std::vector<float> out(4), gradients(6);
    springtide::pool(pooling, rows.data(), out.data(), {2, 0});
    expect(out == std::vector<float>{5, 2, 5, 2}, "maxima");
    springtide::unpool(pooling, pointers, source.data(), {2, 0}, gradients.data());
    expect(gradients == std::vector<float>{10, 0, 30, 40, 0, 20}, "first of equal maxima");
}

void weights_without_a_sum_give_zeros_and_large_ones_do_not_overflow() {
    const float most = std::numeric_limits<float>::max();
    const std::vector<int32_t> inverse = {0, 1, 0, 1};
    const std::vector<int64_t> offsets = {0, 2, 4};
    const std::vector<float> rows = {2, 4}, weights = {1, -1, most, most};
    std::vector<float> out(2, 7);
    springtide::pool({inverse, offsets, 2, 1, {PoolingKind::kMean}, weights}, rows.data(), out.data(), {1, 0});
    expect(out == std::vector<float>{0, 3}, "mean");
    const std::vector<float> none = {0, 0, most, 0};
    springtide::pool({inverse, offsets, 2, 1, {PoolingKind::kSqrtN}, none}, rows.data(), out.data(), {1, 0});
    expect(out == std::vector<float>{0, 2}, "sqrtn");
}

void invalid_arguments_are_rejected() {
    const auto check = [&](std::vector<int32_t> inverse, std::vector<int64_t> offsets, size_t start) {
        springtide::check({inverse, offsets, 2, 2, {}}, {3, start});
    };
    check({0, 1}, {0, 1, 2}, 1);
    check({}, {0}, 1);
    expect_rejected([&] { check({0, 1}, {0, 1, 2}, 2); }, "start beyond the columns");
    expect_rejected([&] { check({0, 1}, {0, 1, 2}, ~size_t{0}); }, "start that overflows");
    expect_rejected([&] { check({0, 2}, {0, 1, 2}, 0); }, "index too large");
    expect_rejected([&] { check({0, -1}, {0, 1, 2}, 0); }, "negative index");
    expect_rejected([&] { check({0, 1}, {0, 1, 1}, 0); }, "offsets that end early");
    expect_rejected([&] { check({0, 1}, {0, 9, 2}, 0); }, "descending offsets");
    expect_rejected([&] { check({0, 1}, {0, -1, 2}, 0); }, "negative offsets");
    expect_rejected([&] { check({0, 1}, {}, 0); }, "no offsets");
}

void invalid_lengths_and_weights_are_rejected() {
    const std::vector<int32_t> inverse = {0, 1};
    const std::vector<int64_t> offsets = {0, 2};
    const auto check = [&](FieldPooling field, std::vector<float> weights, size_t count) {
        springtide::check({inverse, offsets, 2, 2, field, weights}, {count, 0});
    };
    check({PoolingKind::kNone, 2}, {}, 6);
    expect_rejected([&] { check({PoolingKind::kNone, 2}, {}, 5); }, "no room for the mask");
    expect_rejected([&] { check({PoolingKind::kNone, 1}, {}, 6); }, "more keys than max_length");
    expect_rejected([&] { check({PoolingKind::kNone, 0}, {}, 6); }, "no max_length");
    expect_rejected([&] { check({PoolingKind::kNone, ~size_t{0} / 2}, {}, 6); }, "max_length that overflows");
    expect_rejected([&] { check({PoolingKind::kSum, 2}, {}, 6); }, "max_length of a sum");
    check({PoolingKind::kSqrtN}, {1, 2}, 6);
    expect_rejected([&] { check({PoolingKind::kSqrtN}, {1}, 6); }, "too few weights");
    expect_rejected([&] { check({PoolingKind::kMax}, {1, 2}, 6); }, "weights of a maximum");
    expect_rejected([&] { check({PoolingKind::kNone, 2}, {1, 2}, 6); }, "weights of a sequence");
}

}  // namespace

int main() {
    every_path_gives_the_bits_of_the_plain_loop();
    equal_numbers_of_keys_and_samples_need_not_be_one_key_each();
    pool_and_unpool_are_transposes();
    the_gradient_of_a_maximum_goes_to_the_first_key_that_has_it();
    weights_without_a_sum_give_zeros_and_large_ones_do_not_overflow();
    invalid_arguments_are_rejected();
    invalid_lengths_and_weights_are_rejected();
}
