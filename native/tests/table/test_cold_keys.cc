// The keys of cold rows against a map over random operations, a table that swaps rows against what it held, and queries
// of another thread between changes. Run under the sanitizers.
#include "table/cold/cold_keys.h"

#include <limits>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "table/table.h"
#include "tests/expect.h"

namespace {

using springtide::ColdKey;
using springtide::ColdKeys;
using springtide::Table;

constexpr double kAny = std::numeric_limits<double>::infinity();

// Few homes, so that probe sequences wrap and overlap; extreme keys are keys like any others.
uint64_t key_of(uint64_t n) { return n == 0 ? 0 : n == 1 ? ~uint64_t{0} : n * 0x9E3779B97F4A7C15; }

void check(const ColdKeys& keys, const std::map<uint64_t, uint32_t>& expected, uint64_t span) {
    expect(keys.size() == expected.size(), "the set has as many keys as the map");
    std::vector<uint64_t> asked;
    for (uint64_t n = 0; n < span; ++n) asked.push_back(key_of(n));
    std::vector<uint8_t> found(asked.size());
    keys.contains(asked, found.data());
    for (size_t i = 0; i < asked.size(); ++i) {
        const auto at = expected.find(asked[i]);
        const ColdKey* entry = keys.find(asked[i]);
        expect((entry != nullptr) == (at != expected.end()) && found[i] == (entry != nullptr), "a key is found or not");
        expect(entry == nullptr || (entry->key == asked[i] && entry->last_seen_s == at->second), "its entry is right");
    }
    size_t visited = 0;
    keys.for_each([&](const ColdKey& entry) { visited += expected.count(entry.key); });
    expect(visited == expected.size(), "every key is visited once");
}

void compare_with_a_map(unsigned seed, uint64_t span) {
    std::mt19937_64 random(seed);
    ColdKeys keys;
    std::map<uint64_t, uint32_t> expected;
    for (size_t step = 0; step < 8 * span; ++step) {
        const uint64_t key = key_of(random() % span);
        const auto seen = static_cast<uint32_t>(random());
        if (expected.count(key) != 0) {
            keys.erase(key);
            expected.erase(key);
        } else if (random() % 4 != 0) {
            keys.insert({key, seen, 0.0f});
            expected[key] = seen;
        } else {
            keys.erase(key);  // of a key that is not there: nothing
        }
        if (step % span == 0) check(keys, expected, span);
    }
    check(keys, expected, span);
}

void swap_while_another_thread_asks() {
    constexpr size_t kRows = 5'000;
    Table table(4, springtide::make_optimizer("sgd", {.learning_rate = 0.1f}), {7, 0.5f}, 500);
    std::vector<uint64_t> keys;
    for (uint64_t n = 0; n < kRows; ++n) keys.push_back(key_of(n));
    std::vector<uint32_t> numbers(kRows);
    table.admit(keys, numbers.data(), 1);
    table.drain_changes();
    std::vector<std::byte> packed(kRows * table.row_bytes());
    table.rows(keys, packed.data());
    const uint64_t digest = table.digest();
    std::mutex changing;
    std::thread asking([&] {
        std::vector<uint8_t> cold(kRows);
        for (int i = 0; i < 200; ++i) {
            const std::lock_guard guard(changing);
            table.cold(keys, cold.data());
        }
    });
    for (int i = 0; i < 50; ++i) {
        const std::span<const uint64_t> pinned = std::span(keys).subspan(0, kRows / 2);
        const std::lock_guard guard(changing);
        const size_t dropped = table.swap_out(kAny, kRows, kRows, {&pinned, 1});
        expect(dropped > 0 && dropped <= kRows / 2, "pinned rows stay");
        expect(table.size() == kRows && table.scan_digest() == digest, "a cold row counts");
        expect(table.swap_in(keys, packed.data()) == dropped, "what was dropped comes back");
    }
    asking.join();
    expect(table.scan_digest() == digest && table.digest() == digest, "the rows are the same");
}

}  // namespace

int main() {
    for (unsigned seed = 0; seed < 20; ++seed) {
        compare_with_a_map(seed, 40);
        compare_with_a_map(seed, 3'000);
    }
    swap_while_another_thread_asks();
}
