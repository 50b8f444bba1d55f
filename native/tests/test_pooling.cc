// Pooling without Python: distinct keys, sums, means, the transpose, and what is refused. Run under the sanitizers.
#include "pooling.h"

#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>

namespace {

void expect(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "failed: %s\n", what);
    std::exit(1);
}

template <class Call>
void expect_refused(Call call, const char* what) {
    try {
        call();
    } catch (const std::invalid_argument&) {
        return;
    }
    expect(false, what);
}

void unique_is_in_order_of_first_appearance() {
    const std::vector<uint64_t> keys = {9, 0, 9, ~uint64_t{0}, 0, 9};
    const freshet::Unique result = freshet::unique(keys);
    expect(result.keys == std::vector<uint64_t>{9, 0, ~uint64_t{0}}, "distinct keys");
    expect(result.inverse == std::vector<int32_t>{0, 1, 0, 2, 1, 0}, "inverse");
    expect(result.counts == std::vector<uint32_t>{3, 2, 1}, "counts");
    expect(freshet::unique({}).keys.empty(), "no keys");
}

void unique_brings_every_key_back() {
    std::mt19937_64 random(1);
    std::vector<uint64_t> keys(5000);
    for (uint64_t& key : keys) key = random() % 700;
    const freshet::Unique result = freshet::unique(keys);
    uint64_t total = 0;
    for (size_t j = 0; j < keys.size(); ++j) expect(result.keys[result.inverse[j]] == keys[j], "key comes back");
    for (const uint32_t count : result.counts) total += count;
    expect(total == keys.size(), "counts add up");
}

void pool_and_unpool_are_transposes() {
    const std::vector<int32_t> inverse = {0, 1, 1, 1, 2, 0};
    const std::vector<int64_t> offsets = {0, 2, 2, 6};  // samples of 2, 0 and 4 keys: means of whole numbers are exact
    const std::vector<float> rows = {1, 2, 3, 4, 5, 6}, pooled_gradient = {9, 1, -2, 9, 3, 4, 9, -5, 8};
    for (const bool mean : {false, true}) {
        const freshet::Pooling pooling{inverse, offsets, 3, 2, mean};
        std::vector<float> out(9, 7), back(6);
        freshet::pool(pooling, rows.data(), out.data(), 3, 1);
        freshet::unpool(pooling, pooled_gradient.data(), 3, 1, back.data());
        float forward = 0, backward = 0;
        for (size_t i = 0; i < 9; ++i) forward += i % 3 == 0 ? 0 : out[i] * pooled_gradient[i];
        for (size_t i = 0; i < 6; ++i) backward += rows[i] * back[i];
        expect(forward == backward, "transpose");
        expect(out[0] == 7 && out[3] == 7 && out[6] == 7, "other columns stay");
        expect(out[4] == 0 && out[5] == 0, "no keys pool to zeros");
        expect(out[1] == (mean ? 2 : 4), "sum or mean");
    }
}

void what_does_not_fit_is_refused() {
    std::vector<float> rows(4), out(6);
    const auto pool = [&](std::vector<int32_t> inverse, std::vector<int64_t> offsets, size_t start) {
        freshet::pool({inverse, offsets, 2, 2, false}, rows.data(), out.data(), 3, start);
    };
    pool({0, 1}, {0, 1, 2}, 1);
    expect_refused([&] { pool({0, 1}, {0, 1, 2}, 2); }, "start beyond the columns");
    expect_refused([&] { pool({0, 1}, {0, 1, 2}, ~size_t{0}); }, "start that would overflow");
    expect_refused([&] { pool({0, 2}, {0, 1, 2}, 0); }, "index too large");
    expect_refused([&] { pool({0, -1}, {0, 1, 2}, 0); }, "negative index");
    expect_refused([&] { pool({0, 1}, {0, 1, 1}, 0); }, "offsets that end early");
    expect_refused([&] { pool({0, 1}, {0, 9, 2}, 0); }, "offsets that step back");
    expect_refused([&] { pool({0, 1}, {}, 0); }, "no offsets");
}

}  // namespace

int main() {
    unique_is_in_order_of_first_appearance();
    unique_brings_every_key_back();
    pool_and_unpool_are_transposes();
    what_does_not_fit_is_refused();
}
