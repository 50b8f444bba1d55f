// Pooling without Python: sums, means and their transpose compared with plain loops for every code path, and invalid
// arguments. Run under the sanitizers.
#include "batch/pooling.h"

#include <random>
#include <vector>

#include "tests/expect.h"

namespace {

using springtide::Columns;
using springtide::Pooling;

// A random batch in arrays of exact size.
struct Batch {
    std::vector<int64_t> offsets{0};
    std::vector<int32_t> inverse;
    std::vector<float> rows;
    size_t u, dim;

    Batch(std::mt19937_64& random, bool single, size_t dim) : u(1 + random() % 9), dim(dim) {
        const size_t n = random() % 20;
        for (size_t i = 0; i < n; ++i)
            offsets.push_back(offsets.back() + (single ? 1 : static_cast<int64_t>(random() % 5)));
        for (int64_t j = 0; j < offsets.back(); ++j) inverse.push_back(static_cast<int32_t>(random() % u));
        rows = floats(random, u * dim);
    }

    static std::vector<float> floats(std::mt19937_64& random, size_t n) {
        std::vector<float> values(n);
        for (float& value : values) value = std::normal_distribution<float>()(random);
        return values;
    }

    size_t samples() const { return offsets.size() - 1; }
    Pooling pooling(bool mean) const { return {inverse, offsets, u, dim, mean}; }
};

// The specification of pool(), one float at a time.
float pooled_at(const Batch& batch, bool mean, size_t i, size_t d) {
    const int64_t first = batch.offsets[i], end = batch.offsets[i + 1];
    float sum = 0;
    for (int64_t j = first; j < end; ++j) sum += batch.rows[static_cast<size_t>(batch.inverse[j]) * batch.dim + d];
    return mean && end > first ? sum / static_cast<float>(end - first) : sum;
}

float unpooled_at(const Batch& batch, bool mean, const std::vector<float>& pooled, Columns columns, size_t k,
                  size_t d) {
    float sum = 0;
    for (size_t i = 0; i < batch.samples(); ++i)
        for (int64_t j = batch.offsets[i]; j < batch.offsets[i + 1]; ++j)
            if (static_cast<size_t>(batch.inverse[j]) == k)
                sum += pooled[i * columns.count + columns.start + d] /
                       (mean ? static_cast<float>(batch.offsets[i + 1] - batch.offsets[i]) : 1.0f);
    return sum;
}

void expect_pooled(const Batch& batch, bool mean, Columns columns) {
    std::vector<const float*> pointers;
    for (size_t k = 0; k < batch.u; ++k) pointers.push_back(batch.rows.data() + k * batch.dim);
    std::vector<float> out(batch.samples() * columns.count, 7), from_pointers = out;
    springtide::check(batch.pooling(mean), columns);
    springtide::pool(batch.pooling(mean), batch.rows.data(), out.data(), columns);
    springtide::pool(batch.pooling(mean), pointers.data(), from_pointers.data(), columns);
    expect(out == from_pointers, "rows by pointer");
    for (size_t i = 0; i < batch.samples(); ++i)
        for (size_t c = 0; c < columns.count; ++c) {
            const bool inside = c >= columns.start && c < columns.start + batch.dim;
            expect(out[i * columns.count + c] == (inside ? pooled_at(batch, mean, i, c - columns.start) : 7), "pooled");
        }
}

void expect_unpooled(const Batch& batch, bool mean, Columns columns, const std::vector<float>& pooled) {
    std::vector<float> gradients(batch.u * batch.dim, 7);
    springtide::unpool(batch.pooling(mean), pooled.data(), columns, gradients.data());
    for (size_t k = 0; k < batch.u; ++k)
        for (size_t d = 0; d < batch.dim; ++d)
            expect(gradients[k * batch.dim + d] == unpooled_at(batch, mean, pooled, columns, k, d), "unpooled");
}

// Bit-identical: fast paths add the same floats in the same order.
void every_path_gives_the_bits_of_the_plain_loop() {
    std::mt19937_64 random(1);
    for (int round = 0; round < 40; ++round)
        for (const size_t dim : {1, 3, 4, 12, 16, 17, 32, 48})
            for (const bool single : {false, true})
                for (const bool mean : {false, true}) {
                    const Batch batch(random, single, dim);
                    const Columns columns{dim + random() % 3, 0};
                    const Columns moved{columns.count, random() % (columns.count - dim + 1)};
                    expect_pooled(batch, mean, moved);
                    expect_unpooled(batch, mean, moved, Batch::floats(random, batch.samples() * columns.count));
                }
}

void equal_numbers_of_keys_and_samples_need_not_be_one_key_each() {
    const std::vector<int32_t> inverse = {0, 1};
    const std::vector<int64_t> offsets = {0, 2, 2};
    const std::vector<float> rows = {1, 2};
    std::vector<float> out(2, 7);
    springtide::pool({inverse, offsets, 2, 1, false}, rows.data(), out.data(), {1, 0});
    expect(out == std::vector<float>{3, 0}, "a sample with two keys and one without");
}

void pool_and_unpool_are_transposes() {
    const std::vector<int32_t> inverse = {0, 1, 1, 1, 2, 0};
    const std::vector<int64_t> offsets = {0, 2, 2, 6};  // samples of 2, 0 and 4 keys: means of whole numbers are exact
    const std::vector<float> rows = {1, 2, 3, 4, 5, 6}, pooled_gradient = {9, 1, -2, 9, 3, 4, 9, -5, 8};
    for (const bool mean : {false, true}) {
        const Pooling pooling{inverse, offsets, 3, 2, mean};
        std::vector<float> out(9, 7), back(6);
        springtide::pool(pooling, rows.data(), out.data(), {3, 1});
        springtide::unpool(pooling, pooled_gradient.data(), {3, 1}, back.data());
        float forward = 0, backward = 0;
        for (size_t i = 0; i < 9; ++i) forward += i % 3 == 0 ? 0 : out[i] * pooled_gradient[i];
        for (size_t i = 0; i < 6; ++i) backward += rows[i] * back[i];
        expect(forward == backward, "transpose");
    }
}

void invalid_arguments_are_rejected() {
    const auto check = [&](std::vector<int32_t> inverse, std::vector<int64_t> offsets, size_t start) {
        springtide::check({inverse, offsets, 2, 2, false}, {3, start});
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

}  // namespace

int main() {
    every_path_gives_the_bits_of_the_plain_loop();
    equal_numbers_of_keys_and_samples_need_not_be_one_key_each();
    pool_and_unpool_are_transposes();
    invalid_arguments_are_rejected();
}
