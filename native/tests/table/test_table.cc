// The table without Python: compared with a map over random operations, its digest with a scan. Run under the
// sanitizers.
#include "table/table.h"

#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "keys/xxh64.h"
#include "tests/expect.h"

namespace {

using springtide::Statistics;
using springtide::Table;
using Keys = std::vector<uint64_t>;
using Packed = std::vector<std::byte>;

constexpr const char* kKinds[] = {"sgd", "adagrad", "rowwise_adagrad", "adam", "ftrl", "group_ftrl"};
constexpr springtide::OptimizerOptions kOptions = {
    .learning_rate = 0.1f, .initial_accumulator = 0.1f, .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .beta = 1};

Table make(const char* kind, size_t dim, uint64_t seed = 7) {
    return Table(dim, springtide::make_optimizer(kind, kOptions), {seed, 0.5f}, 500);
}

Packed rows_of(const Table& table, const Keys& keys) {
    Packed packed(keys.size() * table.row_bytes());
    table.rows(keys, packed.data());
    return packed;
}

size_t admit_all(Table& table, const Keys& keys, uint32_t at_s) {
    std::vector<uint32_t> rows(keys.size());
    const size_t created = table.admit(keys, rows.data(), at_s);
    for (size_t i = 0; i < keys.size(); ++i) expect(table.key_of(rows[i]) == keys[i], "a row contains its key");
    return created;
}

void update_all(Table& table, const Keys& keys, float gradient, uint32_t at_s) {
    const std::vector<float> gradients(keys.size() * table.dim(), gradient);
    table.update(keys, gradients.data(), std::vector<uint32_t>(keys.size(), 1).data(), at_s);
}

uint64_t digest_of(const std::map<uint64_t, Packed>& rows) {
    uint64_t sum = 0;
    for (const auto& [key, row] : rows) sum += springtide::xxh64(row.data(), row.size(), key);
    return sum;
}

// The expected content of a finished set: the rows as of its begin_changes().
struct Frozen {
    std::map<uint64_t, Packed> rows;
    Keys removed;
    uint64_t digest = 0;
};

// Holds the expected bytes of each key. Python tests compare the result of an update with NumPy.
struct Model {
    Table table;
    std::map<uint64_t, Packed> rows = {};
    std::set<uint64_t> touched = {}, removed = {};
    std::optional<Frozen> open = {};
    uint64_t imported = 0;  // change of the digest by imports since the open set began

    void read(const Keys& keys) {
        const Packed packed = rows_of(table, keys);
        for (size_t i = 0; i < keys.size(); ++i) rows[keys[i]] = row_at(packed, i);
    }

    Packed row_at(const Packed& packed, size_t i) const {
        const auto first = packed.begin() + static_cast<std::ptrdiff_t>(i * table.row_bytes());
        return Packed(first, first + static_cast<std::ptrdiff_t>(table.row_bytes()));
    }

    void admit(const Keys& keys, uint32_t at_s) {
        Keys added;
        for (const uint64_t key : keys)
            if (!rows.contains(key)) added.push_back(key);
        expect(admit_all(table, keys, at_s) == added.size(), "a row for each new key");
        read(added);
        touched.insert(added.begin(), added.end());
    }

    void update(const Keys& keys, uint32_t at_s) {
        Keys resident;
        for (const uint64_t key : keys)
            if (rows.contains(key)) resident.push_back(key);
        update_all(table, keys, 0.25f, at_s);
        const Packed updated = rows_of(table, resident);
        for (size_t i = 0; i < resident.size(); ++i)
            expect(row_at(updated, i) != rows[resident[i]], "an update changes its row");
        read(resident);
        touched.insert(resident.begin(), resident.end());
    }

    void remove(const Keys& keys) {
        size_t resident = 0;
        for (const uint64_t key : keys) resident += rows.contains(key);
        expect(table.remove(keys) == resident, "resident rows are removed");
        for (const uint64_t key : keys)
            if (rows.erase(key)) removed.insert(key);
    }

    void import_rows(const Keys& keys, const Packed& packed) {
        table.import_rows(keys, packed.data());
        for (size_t i = 0; i < keys.size(); ++i) {
            if (removed.contains(keys[i]) && !rows.contains(keys[i])) touched.insert(keys[i]);
            const bool settled = !touched.contains(keys[i]);
            if (settled && rows.contains(keys[i])) imported -= hash_of(keys[i]);
            rows[keys[i]] = row_at(packed, i);
            if (settled) imported += hash_of(keys[i]);
        }
    }

    uint64_t hash_of(uint64_t key) { return springtide::xxh64(rows[key].data(), rows[key].size(), key); }

    void begin_changes() {
        if (open) return expect_rejected([&] { table.begin_changes(); }, "a second set");
        open.emplace();
        open->digest = digest_of(rows);
        for (const uint64_t key : touched)
            if (rows.contains(key)) open->rows[key] = rows[key];
        for (const uint64_t key : removed)
            if (!rows.contains(key)) open->removed.push_back(key);
        touched.clear();
        removed.clear();
        imported = 0;
        table.begin_changes();
    }

    void collect(size_t max_rows) {
        if (!open) return expect_rejected([&] { table.release_collected(); }, "no set is open");
        if (table.collect(max_rows) > 0)
            return expect_rejected([&] { table.release_collected(); }, "an incomplete set");
        expect_rejected([&] { table.settle(0); }, "a sum before the set is released");
        const springtide::Changes changes = finish(table.release_collected());
        check(changes);
        table.settle(changes.touched_sum);
        expect(table.digest() == open->digest + imported, "digest as of begin_changes(), and imports since");
        open.reset();
    }

    void check(const springtide::Changes& changes) const {
        Keys keys;
        std::vector<uint8_t> packed;
        for (const auto& [key, row] : open->rows) {
            keys.push_back(key);
            for (const std::byte byte : row) packed.push_back(static_cast<uint8_t>(byte));
        }
        expect(changes.touched == keys, "touched keys");
        expect(changes.packed == packed, "rows as of begin_changes()");
        expect(changes.removed == open->removed, "removed keys");
        expect(changes.digest == open->digest, "digest of the set");
    }

    void drain_changes() {
        if (open) return expect_rejected([&] { table.drain_changes(); }, "drain with an open set");
        begin_changes();
        while (open) collect(1000);
        expect(table.digest() == table.scan_digest(), "digest of all rows");
    }

    void compare() const {
        expect(table.size() == rows.size(), "size");
        Keys keys;
        Packed packed;
        for (const auto& [key, row] : rows) {
            keys.push_back(key);
            packed.insert(packed.end(), row.begin(), row.end());
        }
        expect(table.keys() == keys, "keys");
        expect(rows_of(table, keys) == packed, "every row has its bytes");
        expect(table.scan_digest() == digest_of(rows), "scanned digest");
    }
};

Keys choose(const Keys& known, std::mt19937_64& random) {
    Keys keys;
    for (const uint64_t key : known)
        if (random() % 4 == 0) keys.push_back(key);
    return keys;
}

void table_is_a_map_over_random_operations(uint64_t seed) {
    std::mt19937_64 random(seed);
    const char* kind = kKinds[seed % std::size(kKinds)];
    const size_t dim = 1 + random() % (seed % 50 ? 6 : 100);
    Model model{make(kind, dim)};
    Keys known = {0, ~uint64_t{0}};
    for (int i = 0; i < 30; ++i) known.push_back(random());
    for (uint32_t at_s = 1000; at_s < 1060; ++at_s) {
        const Keys keys = choose(known, random);
        switch (random() % 7) {
            case 0: model.admit(keys, at_s); break;
            case 1: model.update(keys, at_s); break;
            case 2: model.remove(keys); break;
            case 3: {
                Table source = make(kind, dim, random());
                admit_all(source, keys, at_s);
                model.import_rows(keys, rows_of(source, keys));
                break;
            }
            case 4: model.begin_changes(); break;
            case 5: model.collect(1 + random() % 8); break;
            case 6: model.drain_changes(); break;
        }
        model.compare();
    }
}

void rows_keep_their_weights_while_the_table_grows() {
    Table table = make("rowwise_adagrad", 3);
    Keys keys(100'000);
    for (size_t i = 0; i < keys.size(); ++i) keys[i] = i << 40;  // equal low bits
    for (const uint64_t key : keys) admit_all(table, {key}, 1);
    std::vector<float> before(keys.size() * 3), after(keys.size() * 3);
    table.lookup(keys, before.data());
    Keys half;
    for (size_t i = 0; i < keys.size(); i += 2) half.push_back(keys[i]);
    expect(table.remove(half) == half.size(), "half of the rows are removed");
    admit_all(table, half, 2);
    table.lookup(keys, after.data());
    expect(before == after, "weights are a function of the key");
    table.drain_changes();
    expect(table.digest() == table.scan_digest(), "digest after growth");
}

void rejected_updates_change_nothing() {
    for (const char* kind : kKinds) {
        Table table = make(kind, 2);
        admit_all(table, {1, 2}, 1);
        const uint64_t before = table.scan_digest();
        const float bad[] = {0, 0, 0, std::numeric_limits<float>::quiet_NaN()}, good[] = {1, 1, 1, 1};
        const uint32_t one[] = {1, 1}, none[] = {1, 0};
        expect_rejected([&] { table.update(Keys{1, 2}, bad, one, 2); }, "a gradient that is NaN");
        expect_rejected([&] { table.update(Keys{1, 1}, good, one, 2); }, "a resident key twice");
        expect_rejected([&] { table.update(Keys{9, 9}, good, one, 2); }, "a missing key twice");
        expect_rejected([&] { table.update(Keys{1, 2}, good, none, 2); }, "a count of 0");
        expect(table.scan_digest() == before, "nothing changed");
        table.update(Keys{1, 2}, good, one, 2);
        expect(table.scan_digest() != before, "a good update after rejected ones");
    }
}

void invalid_rows_are_not_imported() {
    Table table = make("adagrad", 2);
    admit_all(table, {1}, 1);
    const Packed good = rows_of(table, {1});
    const auto spoiled = [&](size_t at, float value) {
        Packed packed = good;
        std::memcpy(packed.data() + at, &value, sizeof(value));
        return packed;
    };
    const float infinite = std::numeric_limits<float>::infinity();
    Table target = make("adagrad", 2);
    expect_rejected([&] { target.import_rows(Keys{1}, spoiled(0, infinite).data()); }, "infinite weight");
    expect_rejected([&] { target.import_rows(Keys{1}, spoiled(12, -1).data()); }, "negative accumulator");
    expect_rejected([&] { target.import_rows(Keys{1}, spoiled(24, -1).data()); }, "negative importance");
    expect_rejected([&] { target.import_rows(Keys{1}, spoiled(28, 2).data()); }, "unsettled above 1");
    expect_rejected([&] { target.import_rows(Keys{1}, spoiled(32, -1).data()); }, "negative curvature");
    expect(target.size() == 0, "nothing imported");
    target.import_rows(Keys{1}, good.data());
    expect(rows_of(target, {1}) == good, "the valid row is imported");
}

void unknown_optimizers_and_missing_rows_are_rejected() {
    expect_rejected([] { make("newton", 2); }, "an unknown optimizer");
    const Table table = make("adagrad", 2);
    expect_rejected([&] { rows_of(table, {5}); }, "a missing row");
    Statistics statistics{};
    table.statistics(Keys{5}, &statistics);
    expect(statistics.count == 0 && statistics.unsettled == 1, "statistics of a missing key");
}

void numbers_stay_finite() {
    constexpr springtide::OptimizerOptions kFast = {.learning_rate = 1e6f, .initial_accumulator = 0.1f};
    Table table(1024, springtide::make_optimizer("rowwise_adagrad", kFast), {1, 0.5f}, 1);
    admit_all(table, {1}, 0);
    for (uint32_t at_s = 0; at_s < 50; ++at_s) update_all(table, {1}, springtide::kGradientLimit, at_s);
    std::vector<float> weights(1024);
    table.lookup(Keys{1}, weights.data());
    for (const float weight : weights) expect(std::isfinite(weight), "weights are finite");
}

void any_number_of_threads_gives_the_same_table() {
    std::vector<Packed> rows;
    std::vector<uint64_t> digests;
    for (const size_t threads : {1, 2, 3, 7}) {
        Table table = make("adagrad", 16);
        Keys keys(20'000);
        for (size_t i = 0; i < keys.size(); ++i) keys[i] = i * 0x9E3779B97F4A7C15;
        std::vector<uint32_t> found(keys.size()), counts(keys.size(), 2);
        std::vector<float> gradients(keys.size() * 16), weights(gradients.size());
        for (size_t i = 0; i < gradients.size(); ++i) gradients[i] = static_cast<float>(i % 1009) / 1009;
        table.admit(std::span(keys).subspan(500), found.data(), 1);
        table.begin_changes();
        table.collect(7000);
        table.find(keys, found.data(), threads);
        table.update_rows(found, keys, {gradients.data(), nullptr, counts.data()}, 2, threads);
        table.lookup(keys, weights.data(), threads);
        expect(table.collect(0) == 0, "every changed row was copied before");
        const springtide::Changes changes = finish(table.release_collected());
        table.settle(changes.touched_sum);
        digests.push_back(table.digest());
        digests.push_back(table.drain_changes().digest);
        Packed packed((keys.size() - 500) * table.row_bytes());
        table.rows(std::span(keys).subspan(500), packed.data(), threads);
        rows.push_back(packed);
        const auto* floats = reinterpret_cast<const std::byte*>(weights.data());
        rows.back().insert(rows.back().end(), floats, floats + weights.size() * sizeof(float));
        expect(digests[digests.size() - 1] == digests[1] && digests[digests.size() - 2] == digests[0], "digests");
        expect(rows.back() == rows.front(), "rows and weights");
    }
}

void a_budget_is_a_number_of_rows() {
    constexpr size_t kBudget = 20 << 20;
    Table table(16, springtide::make_optimizer("rowwise_adagrad", kOptions), {1, 0.5f}, 1, kBudget);
    Keys keys(table.max_rows() + 1000);
    for (size_t i = 0; i < keys.size(); ++i) keys[i] = i;
    std::vector<uint32_t> rows(keys.size());
    expect(table.admit(keys, rows.data(), 1) == table.max_rows(), "rows up to the budget");
    expect(rows[table.max_rows() - 1] != springtide::kNoRow, "the last row in the budget");
    expect(rows[table.max_rows()] == springtide::kNoRow, "the first row beyond the budget");
    expect(table.max_rows() > kBudget / 104, "the budget is used");
    expect(table.memory_bytes() < kBudget + (6 << 20), "the budget is not exceeded");
    table.remove(Keys{0, 1, 2});
    expect(table.admit(std::span(keys).subspan(table.max_rows()), rows.data(), 1) == 3, "removed rows free budget");
}

void keys_with_similar_hashes_are_distinguished() {
    springtide::KeyIndex index;
    Keys keys;  // differ in few bits
    for (uint64_t i = 0; i < 3000; ++i) keys.push_back(i << 52 | i >> 12);
    struct KeyOf {
        const Keys& keys;
        uint64_t operator()(uint32_t row) const { return keys[row]; }
        [[gnu::always_inline]] void prefetch(uint32_t) const {}
    } key_of{keys};
    for (uint32_t i = 0; i < keys.size(); ++i) index.insert(keys[i], i, key_of);
    for (uint32_t i = 0; i < keys.size(); ++i) expect(index.find(keys[i], key_of) == i, "every key is found");
    for (uint32_t i = 0; i < keys.size(); i += 2) index.erase(keys[i], i);
    for (uint32_t i = 0; i < keys.size(); ++i)
        expect(index.find(keys[i], key_of) == (i % 2 ? i : springtide::kNoRow), "every other key is removed");
    size_t visited = 0;
    index.for_each(key_of, [&](uint64_t key, uint32_t row) { visited += keys[row] == key; });
    expect(visited == index.size() && visited == keys.size() / 2, "each key is visited once");
}

}  // namespace

int main() {
    for (uint64_t seed = 0; seed < 3000; ++seed) table_is_a_map_over_random_operations(seed);
    any_number_of_threads_gives_the_same_table();
    a_budget_is_a_number_of_rows();
    keys_with_similar_hashes_are_distinguished();
    rows_keep_their_weights_while_the_table_grows();
    rejected_updates_change_nothing();
    invalid_rows_are_not_imported();
    unknown_optimizers_and_missing_rows_are_rejected();
    numbers_stay_finite();
}
