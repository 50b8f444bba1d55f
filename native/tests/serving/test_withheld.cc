// What is withheld, without Python: nothing is read or written outside, whatever the keys, and a choice by sorting agrees.
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
    std::vector<float> worth, value;

    explicit Rows(size_t n) : keys(n), worth(n), value(n) {}
    springtide::WithheldRows read() const { return {keys.data(), worth.data(), value.data(), keys.size()}; }
    springtide::WithheldColumns write() { return {keys.data(), worth.data(), value.data()}; }
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

// Keys in no order mean nothing, and still stay inside the room they were given.
void any_keys_stay_inside(bool ascending) {
    std::mt19937_64 random(5);
    for (int turn = 0; turn < 300; ++turn) {
        const Rows held = random_rows(random, random() % 60, ascending), judged = random_rows(random, random() % 60, ascending);
        const size_t room = held.keys.size() + judged.keys.size();
        const auto flags = std::make_unique<bool[]>(60);
        for (size_t i = 0; i < 60; ++i) flags[i] = random() % 2;
        Rows out(room);
        const size_t n = springtide::judge_anew(held.read(), judged.read(), flags.get(), out.write());
        expect(n <= room, "room");
        if (ascending) expect(std::is_sorted(out.keys.begin(), out.keys.begin() + static_cast<long>(n)), "ascending");
        const auto count = static_cast<size_t>(std::count(flags.get(), flags.get() + held.keys.size(), true));
        std::vector<uint64_t> taken(count);
        Rows left(held.keys.size());
        expect(springtide::take_out(held.read(), flags.get(), taken.data(), left.write()) == held.keys.size() - count, "left");
    }
}

void chooses_as_by_sorting() {
    std::mt19937_64 random(6);
    for (int turn = 0; turn < 200; ++turn) {
        const size_t n = 1 + random() % 300;
        std::vector<float> worth(n), value(n);
        for (size_t i = 0; i < n; ++i) worth[i] = static_cast<float>(random() % 50), value[i] = worth[i] / 4;
        std::vector<size_t> order(n);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return value[a] > value[b]; });
        const double whole = std::accumulate(worth.begin(), worth.end(), 0.0);
        const auto chosen = std::make_unique<bool[]>(n);
        springtide::select_worthiest(worth.data(), value.data(), n, 0.75, chosen.get());
        double carried = 0;
        for (const size_t i : order) {
            expect(chosen[i] == (worth[i] > 0 && carried < 0.75 * whole), "chosen");
            carried += worth[i];
        }
    }
    springtide::select_worthiest(nullptr, nullptr, 0, 0.5, nullptr);
}

}  // namespace

int main() {
    any_keys_stay_inside(true);
    any_keys_stay_inside(false);
    chooses_as_by_sorting();
}
