// Withheld rows without Python: accesses stay in bounds for any keys, and worth decays.
#include "serving/withheld.h"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "tests/expect.h"

namespace {

struct Rows {
    std::vector<uint64_t> keys;
    std::vector<float> worth, worth_per_byte;
    std::vector<uint32_t> seen_s;

    explicit Rows(size_t n) : keys(n), worth(n), worth_per_byte(n), seen_s(n) {}
    springtide::WithheldRows read() const {
        return {keys.data(), worth.data(), worth_per_byte.data(), seen_s.data(), keys.size()};
    }
    springtide::WithheldColumns write() { return {keys.data(), worth.data(), worth_per_byte.data(), seen_s.data()}; }
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

void worth_halves_with_each_half_life() {
    Rows rows(3), now(3);
    rows.worth = {8, 8, 8}, rows.worth_per_byte = {2, 2, 2}, rows.seen_s = {100, 110, 130};
    springtide::decay_worth(rows.read(), 120, 10, now.write());
    expect(now.worth == std::vector<float>({2, 4, 8}), "worth");
    expect(now.worth_per_byte == std::vector<float>({0.5f, 1, 2}), "worth per byte");
}

}  // namespace

int main() {
    accesses_stay_in_bounds(true);
    accesses_stay_in_bounds(false);
    worth_halves_with_each_half_life();
}
