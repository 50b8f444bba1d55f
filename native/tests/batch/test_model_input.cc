// ModelInput without Python: fields that share a table, under the sanitizers and with several threads.
#include "batch/model_input.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "tests/expect.h"

namespace {

using springtide::FieldKeys;
using springtide::ModelInput;
using springtide::Table;
using springtide::TableKeys;

constexpr size_t kDim = 2, kColumns = 3 * kDim;
constexpr springtide::FieldPooling kSum, kMean{springtide::PoolingKind::kMean};

Table make() {
    return Table(kDim, springtide::make_optimizer("sgd", {.learning_rate = 0.5f}), {7, 0.5f}, 500);
}

std::vector<float> weights_of(const Table& table, const std::vector<uint64_t>& keys) {
    std::vector<float> weights(keys.size() * kDim);
    table.lookup(keys, weights.data());
    return weights;
}

// The weights as the forward pass reads them.
std::vector<float> values_of(const Table& table, const std::vector<uint64_t>& keys, springtide::Rounding rounding) {
    std::vector<float> values = weights_of(table, keys);
    std::vector<springtide::Statistics> statistics(keys.size());
    table.statistics(keys, statistics.data());
    for (size_t i = 0; i < keys.size(); ++i) {
        const springtide::RowGrid grid = springtide::grid_of(&values[i * kDim], kDim, rounding);
        for (size_t d = 0; d < kDim && statistics[i].importance < 2; ++d)
            values[i * kDim + d] = grid.value_of(values[i * kDim + d]);
    }
    return values;
}

// Two samples; the first and the last field read the first table. Sample 0 has key 1 in both of them, sample 1 has key
// 2 in the first field and an empty list in the last one, and key 3 is in the last field alone.
struct Batch {
    std::vector<uint64_t> shared = {1, 2, 3}, own = {9};
    std::vector<uint32_t> shared_counts = {2, 1, 1}, own_counts = {2};
    std::vector<int32_t> first = {0, 1}, middle = {0, 0}, last = {0, 2};
    std::vector<int64_t> one_each = {0, 1, 2}, two_and_none = {0, 2, 2};

    std::array<TableKeys, 2> tables() const { return {{{shared, shared_counts}, {own, own_counts}}}; }
    std::array<FieldKeys, 3> fields() const { return {{{first, one_each, {}}, {middle, one_each, {}}, {last, two_and_none, {}}}}; }
};

void a_shared_row_is_updated_once_by_the_sum_of_all_fields(size_t threads) {
    Table shared = make(), own = make();
    ModelInput input({&shared, &own}, {{0, kSum}, {1, kSum}, {0, kMean}}, 0, threads);
    const Batch batch;
    std::array<size_t, 2> missing{};
    input.find(batch.tables(), batch.fields(), missing.data());
    expect(missing == std::array<size_t, 2>{3, 1}, "keys of a table are counted once");
    const std::array<size_t, 2> both = {0, 1};
    expect(input.admit_missing(both, 1) == std::vector<std::vector<int64_t>>{{0, 1, 2}, {0}}, "places");
    const std::vector<float> before = weights_of(shared, batch.shared);
    std::vector<float> matrix(2 * kColumns, 7);
    input.gather(matrix.data());
    for (size_t d = 0; d < kDim; ++d) {
        expect(matrix[d] == before[d] && matrix[kColumns + d] == before[kDim + d], "first field");
        expect(matrix[4 + d] == (before[d] + before[4 + d]) / 2 && matrix[kColumns + 4 + d] == 0, "last field");
    }
    const std::vector<float> gradient = {1, 2, 0, 0, 4, 8, 16, 32, 0, 0, 64, 128};
    input.learn(gradient.data(), 2);
    const std::vector<float> after = weights_of(shared, batch.shared);
    const std::vector<float> summed = {1 + 2, 2 + 4, 16, 32, 2, 4};
    for (size_t i = 0; i < summed.size(); ++i) expect(after[i] == before[i] - 0.5f * summed[i], "one step by the sum");
    std::vector<springtide::Statistics> statistics(3);
    shared.statistics(batch.shared, statistics.data());
    expect(statistics[0].count == 2 && statistics[1].count == 1 && statistics[2].count == 1, "occurrences");
}

// Two batches of the same keys: the second is gathered before the rows learn the first.
void a_batch_set_aside_learns_after_the_next_was_gathered(size_t threads) {
    Table shared = make(), own = make();
    ModelInput input({&shared, &own}, {{0, kSum}, {1, kSum}, {0, kMean}}, 0, threads);
    const Batch first, second;
    const std::array<size_t, 2> both = {0, 1};
    std::array<size_t, 2> missing{};
    std::vector<float> matrix(2 * kColumns), next(2 * kColumns);
    input.find(first.tables(), first.fields(), missing.data());
    input.admit_missing(both, 1);
    input.gather(matrix.data());
    input.defer();
    input.find(second.tables(), second.fields(), missing.data());
    input.gather(next.data());
    expect(next == matrix, "rows without the gradient of the batch set aside");
    const std::vector<float> before = weights_of(shared, first.shared);
    const std::vector<float> gradient = {1, 2, 0, 0, 4, 8, 16, 32, 0, 0, 64, 128};
    input.learn_deferred(gradient.data(), 2);
    const std::vector<float> between = weights_of(shared, first.shared);
    input.learn(gradient.data(), 3);
    const std::vector<float> after = weights_of(shared, first.shared), summed = {1 + 2, 2 + 4, 16, 32, 2, 4};
    for (size_t i = 0; i < summed.size(); ++i) {
        expect(between[i] == before[i] - 0.5f * summed[i], "the step of the first");
        expect(after[i] == between[i] - 0.5f * summed[i], "the step of the second");
    }
}

// Rows of importance 2 and more are read as they are.
void rows_are_read_rounded_and_updated_in_full_precision(springtide::Rounding rounding) {
    Table table(kDim, springtide::make_optimizer("sgd", {.learning_rate = 0.5f}), {7, 0.5f}, 500);
    ModelInput input({&table}, {{0, kSum}, {0, {springtide::PoolingKind::kMax}}}, 0, 1, {{rounding, 2}});
    const Batch batch;
    size_t missing = 0;
    const std::array<TableKeys, 1> keys = {{{batch.shared, batch.shared_counts}}};
    const std::array<FieldKeys, 2> fields = {{{batch.first, batch.one_each, {}}, {batch.last, batch.two_and_none, {}}}};
    const std::array<size_t, 1> all = {0};
    std::vector<float> matrix(2 * 2 * kDim);
    for (uint32_t at_s = 1; at_s < 4; ++at_s) {
        input.find(keys, fields, &missing);
        input.admit_missing(all, at_s);
        const std::vector<float> before = weights_of(table, batch.shared), read = values_of(table, batch.shared, rounding);
        std::vector<springtide::Statistics> statistics(3), later(3);
        table.statistics(batch.shared, statistics.data());
        input.gather(matrix.data());
        for (size_t d = 0; d < kDim; ++d) {
            expect(matrix[d] == read[d] && matrix[4 + d] == read[kDim + d], "first field");
            expect(matrix[2 + d] == std::max(read[d], read[4 + d]) && matrix[6 + d] == 0, "last field");
        }
        input.learn(std::vector<float>{1, 2, 0, 0, 4, 8, 0, 0}.data(), at_s);
        const std::vector<float> after = weights_of(table, batch.shared);
        table.statistics(batch.shared, later.data());
        for (const size_t k : {0, 1}) {
            const float g = k == 0 ? 1 : 4;
            expect(after[2 * k] == before[2 * k] - 0.5f * g, "the gradient of the rounded value");
            const float wanted = statistics[k].importance + std::abs(g * read[2 * k] + 2 * g * read[2 * k + 1]);
            expect(std::abs(later[k].importance - wanted) <= 0.01f * wanted, "importance of what was read");
        }
    }
    expect(values_of(table, batch.shared, rounding) != weights_of(table, batch.shared), "the row without gradient");
}

void what_does_not_fit_is_rejected() {
    Table table = make();
    expect_rejected([&] { ModelInput({&table}, {{1, kSum}}, 0, 1); }, "a field of a missing table");
    expect_rejected([&] { ModelInput({&table}, {{0, kSum}}, 0, 1, {{}, {}}); }, "a rounding of a missing table");
    ModelInput input({&table}, {{0, kSum}, {0, kSum}}, 0, 1);
    Batch batch;
    size_t missing = 0;
    const std::array<TableKeys, 1> keys = {{{batch.shared, batch.shared_counts}}};
    const std::array<FieldKeys, 2> fields = {{{batch.first, batch.one_each, {}}, {batch.last, batch.two_and_none, {}}}};
    input.find(keys, fields, &missing);
    expect(missing == 3, "one table, two fields");
    expect_rejected([&] { input.find(batch.tables(), fields, &missing); }, "a table too many");
    expect_rejected([&] { input.find(keys, std::span(fields).first(1), &missing); }, "a field too few");
    const std::array<TableKeys, 1> fewer = {{{std::span(batch.shared).first(2), std::span(batch.own_counts).first(1)}}};
    expect_rejected([&] { input.find(fewer, fields, &missing); }, "counts that do not fit the keys");
    const std::array<TableKeys, 1> two = {
        {{std::span(batch.shared).first(2), std::span(batch.shared_counts).first(2)}}};
    expect_rejected([&] { input.find(two, fields, &missing); }, "an occurrence of a key that the table does not have");
}

}  // namespace

int main() {
    a_shared_row_is_updated_once_by_the_sum_of_all_fields(1);
    a_shared_row_is_updated_once_by_the_sum_of_all_fields(3);
    a_batch_set_aside_learns_after_the_next_was_gathered(1);
    a_batch_set_aside_learns_after_the_next_was_gathered(3);
    for (const auto rounding : {springtide::Rounding::one_bit, springtide::Rounding::ternary, springtide::Rounding::two_bits,
                                springtide::Rounding::four_bits, springtide::Rounding::eight_bits})
        rows_are_read_rounded_and_updated_in_full_precision(rounding);
    what_does_not_fit_is_rejected();
}
