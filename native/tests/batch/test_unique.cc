// Uniquer without Python: compared with a map for various key patterns, with one table over many calls.
#include "batch/unique.h"

#include <random>
#include <unordered_map>

#include "tests/expect.h"

namespace {

using springtide::Uniquer;

struct Unique {
    std::vector<uint64_t> keys;
    std::vector<int32_t> inverse;
    std::vector<uint32_t> counts;
};

Unique unique(Uniquer& uniquer, const std::vector<uint64_t>& keys) {
    Unique result{std::vector<uint64_t>(keys.size()), std::vector<int32_t>(keys.size()),
                  std::vector<uint32_t>(keys.size())};
    const size_t u = uniquer.unique(keys, result.keys.data(), result.inverse.data(), result.counts.data());
    result.keys.resize(u);
    result.counts.resize(u);
    return result;
}

Unique model(const std::vector<uint64_t>& keys) {
    Unique result;
    std::unordered_map<uint64_t, int32_t> positions;
    for (const uint64_t key : keys) {
        const auto [at, is_new] = positions.try_emplace(key, static_cast<int32_t>(result.keys.size()));
        if (is_new) {
            result.keys.push_back(key);
            result.counts.push_back(0);
        }
        ++result.counts[static_cast<size_t>(at->second)];
        result.inverse.push_back(at->second);
    }
    return result;
}

void expect_model(Uniquer& uniquer, const std::vector<uint64_t>& keys, const char* what) {
    const Unique found = unique(uniquer, keys), wanted = model(keys);
    expect(found.keys == wanted.keys && found.inverse == wanted.inverse && found.counts == wanted.counts, what);
}

void keys_are_in_order_of_first_appearance() {
    Uniquer uniquer;
    const Unique found = unique(uniquer, {9, 0, 9, ~uint64_t{0}, 0, 9});
    expect(found.keys == std::vector<uint64_t>{9, 0, ~uint64_t{0}}, "distinct keys");
    expect(found.inverse == std::vector<int32_t>{0, 1, 0, 2, 1, 0}, "inverse");
    expect(found.counts == std::vector<uint32_t>{3, 2, 1}, "counts");
}

void one_table_processes_batches_of_every_size() {
    std::mt19937_64 random(1);
    Uniquer uniquer;
    for (int call = 0; call < 3000; ++call) {
        std::vector<uint64_t> keys(random() % (call % 100 == 0 ? 5000 : 100));
        const int shift = static_cast<int>(random() % 64);
        for (uint64_t& key : keys) key = random() >> shift;
        expect_model(uniquer, keys, "random batch");
    }
}

// Both sides of the load factor at which the table grows.
void growth_keeps_all_keys() {
    for (const size_t n : {511, 512, 513, 1023, 1024, 1025, 40000}) {
        std::vector<uint64_t> keys(2 * n);
        for (size_t i = 0; i < keys.size(); ++i) keys[i] = i % n;
        Uniquer uniquer;
        expect_model(uniquer, keys, "grown table");
        expect_model(uniquer, keys, "grown table again");
    }
}

void patterned_keys_are_distinguished() {
    Uniquer uniquer;
    for (const uint64_t step : {uint64_t{1}, uint64_t{1} << 20, uint64_t{1} << 32, uint64_t{1} << 50, ~uint64_t{0},
                                uint64_t{0x9E3779B97F4A7C15}, uint64_t{0x100000001}}) {
        std::vector<uint64_t> keys(6000);
        for (size_t i = 0; i < keys.size(); ++i) keys[i] = step * (i % 2500);
        expect_model(uniquer, keys, "arithmetic progression");
    }
}

// Outputs of exactly m elements, so that AddressSanitizer detects a write beyond them.
void nothing_is_written_beyond_the_keys() {
    Uniquer uniquer;
    for (const size_t m : {0, 1, 2, 15, 16, 17, 600}) {
        std::vector<uint64_t> keys(m), distinct(m);
        std::vector<int32_t> inverse(m);
        std::vector<uint32_t> counts(m);
        for (size_t i = 0; i < m; ++i) keys[i] = i;
        expect(uniquer.unique(keys, distinct.data(), inverse.data(), counts.data()) == m, "all distinct");
        expect(distinct == keys, "distinct keys are the keys");
    }
}

void too_many_keys_are_rejected() {
    uint64_t key = 0;
    expect_rejected([&] { Uniquer().unique({&key, size_t{1} << 31}, nullptr, nullptr, nullptr); }, "2^31 keys");
}

}  // namespace

int main() {
    keys_are_in_order_of_first_appearance();
    one_table_processes_batches_of_every_size();
    growth_keeps_all_keys();
    patterned_keys_are_distinguished();
    nothing_is_written_beyond_the_keys();
    too_many_keys_are_rejected();
}
