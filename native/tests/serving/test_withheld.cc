// Withheld rows without Python: accesses stay in bounds for any keys, and the selection agrees with one by sorting.
#include "serving/withheld.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "tests/expect.h"

namespace {

struct Rows {
    std::vector<uint64_t> keys;
    std::vector<float> worth, worth_per_byte;

    explicit Rows(size_t n) : keys(n), worth(n), worth_per_byte(n) {}
    springtide::WithheldRows read() const { return {keys.data(), worth.data(), worth_per_byte.data(), keys.size()}; }
    springtide::WithheldColumns write() { return {keys.data(), worth.data(), worth_per_byte.data()}; }
};

Rows random_rows(std::mt19937_64& random, size_t n, bool ascending) {
    Rows rows(n);
    for (uint64_t& key : rows.keys) key = random() % 1000;
    if (ascending) {
        std::sort(rows.keys.begin(), rows.keys.end());
        rows.keys.erase(std::unique(rows.keys.begin(), rows.keys.end()), rows.keys.end());
    }
    for (float& worth : rows.worth) worth = static_cast<float>(random() % 100);
    return rows;
}

// Also for unordered keys, which give unspecified results.
void accesses_stay_in_bounds(bool ascending) {
    std::mt19937_64 random(5);
    for (int turn = 0; turn < 300; ++turn) {
        const Rows rows = random_rows(random, random() % 60, ascending);
        const Rows scored = random_rows(random, random() % 60, ascending);
        const size_t capacity = rows.keys.size() + scored.keys.size();
        const auto flags = std::make_unique<bool[]>(60);
        for (size_t i = 0; i < 60; ++i) flags[i] = random() % 2;
        Rows out(capacity);
        const size_t n = springtide::merge_scored(rows.read(), scored.read(), flags.get(), out.write());
        expect(n <= capacity, "capacity");
        if (ascending) expect(std::is_sorted(out.keys.begin(), out.keys.begin() + static_cast<long>(n)), "ascending");
        const auto count = static_cast<size_t>(std::count(flags.get(), flags.get() + rows.keys.size(), true));
        std::vector<uint64_t> chosen_keys(count);
        Rows rest(rows.keys.size());
        const size_t left = springtide::split_chosen(rows.read(), flags.get(), chosen_keys.data(), rest.write());
        expect(left == rows.keys.size() - count, "rest");
    }
}

void selects_like_sorting() {
    std::mt19937_64 random(6);
    for (int turn = 0; turn < 200; ++turn) {
        const size_t n = 1 + random() % 300;
        std::vector<float> worth(n), worth_per_byte(n);
        for (size_t i = 0; i < n; ++i) worth[i] = static_cast<float>(random() % 50), worth_per_byte[i] = worth[i] / 4;
        std::vector<size_t> order(n);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](size_t a, size_t b) { return worth_per_byte[a] > worth_per_byte[b]; });
        const double total = std::accumulate(worth.begin(), worth.end(), 0.0);
        const auto chosen = std::make_unique<bool[]>(n);
        springtide::select_worthiest(worth.data(), worth_per_byte.data(), n, 0.75, chosen.get());
        double selected = 0;
        for (const size_t i : order) {
            expect(chosen[i] == (worth[i] > 0 && selected < 0.75 * total), "chosen");
            selected += worth[i];
        }
    }
    springtide::select_worthiest(nullptr, nullptr, 0, 0.5, nullptr);
}

}  // namespace

int main() {
    accesses_stay_in_bounds(true);
    accesses_stay_in_bounds(false);
    selects_like_sorting();
}
