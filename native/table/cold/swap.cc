// Swapping rows of a table out and in.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "table/cold/pinned_keys.h"
#include "table/rejection.h"
#include "table/table.h"

namespace springtide {

// The index has no entry for a free row number, whatever its bytes are.
bool Table::may_swap_out(uint32_t row) const { return !touched_.is_set(row) && find(key_of(row)) == row; }

double Table::worth_of(uint32_t row) const {
    const Statistics& s = statistics_of(row);
    return std::log2(1.0 + s.count) + s.last_seen_s / statistics_updater_.half_life_s();
}

void Table::require_resident(std::span<const uint64_t> keys, const char* call) const {
    if (cold_.size() == 0) return;
    for (const uint64_t key : keys)
        if (cold_.find(key) != nullptr) reject(call, key, "a cold row", "a resident one. hint: swap_in() first");
}

size_t Table::sample_worths(size_t max_rows, double* worths) const {
    const size_t bound = rows_.bound(), n = std::min(max_rows, bound);
    size_t found = 0;
    for (size_t i = 0; i < n; ++i) {
        const auto row = static_cast<uint32_t>((victim_ + i * bound / n) % bound);
        if (may_swap_out(row)) worths[found++] = worth_of(row);
    }
    return found;
}

size_t Table::swap_out(double worth, size_t max_rows, size_t max_scanned,
                       std::span<const std::span<const uint64_t>> pinned) {
    if (open()) throw std::invalid_argument("swap out: got an open set of changes, wanted none. hint: settle() it");
    PinnedKeys stay;
    for (const std::span<const uint64_t> keys : pinned) stay.add(keys);
    const size_t bound = rows_.bound(), before = cold_.size();
    for (size_t scanned = std::min(max_scanned, bound); scanned > 0 && cold_.size() - before < max_rows; --scanned) {
        if (victim_ >= bound) victim_ = 0;
        const uint32_t row = victim_++;
        if (worth_of(row) > worth || !may_swap_out(row)) continue;
        const uint64_t key = key_of(row);
        if (stay.contains(key)) continue;
        cold_.insert({key, statistics_of(row).last_seen_s, statistics_of(row).importance});
        cold_sum_ += hash(row);
        index_.erase(key, row);
        rows_.release(row);
    }
    return cold_.size() - before;
}

bool Table::is_dropped(const ColdKey& cold, const std::byte* packed) const {
    Statistics s;
    std::memcpy(&s, packed + row_bytes() - sizeof(s), sizeof(s));
    return s.last_seen_s == cold.last_seen_s && s.importance == cold.importance;
}

size_t Table::swap_in(std::span<const uint64_t> keys, const std::byte* packed) {
    std::vector<uint64_t> distinct(keys.begin(), keys.end());
    if (const uint64_t* duplicate = first_duplicate(distinct))
        reject("swap in", *duplicate, "it twice", "distinct keys");
    for (size_t i = 0; i < keys.size(); ++i) {
        const ColdKey* cold = cold_.find(keys[i]);
        if (cold == nullptr && find(keys[i]) == kNoRow) reject("swap in", keys[i], "no row", "a cold one");
        if (cold != nullptr && !is_dropped(*cold, packed + i * row_bytes()))
            reject("swap in", keys[i], "another row than the one swapped out", "the same bytes");
    }
    const size_t before = cold_.size();
    for (size_t i = 0; i < keys.size(); ++i) {
        if (cold_.find(keys[i]) == nullptr) continue;
        const uint32_t row = place_row(keys[i]);
        std::memcpy(this->packed(row), packed + i * row_bytes(), row_bytes());
        cold_.erase(keys[i]);
        cold_sum_ -= hash(row);
    }
    return before - cold_.size();
}

void Table::import_cold(std::span<const RunView> runs, uint64_t first, uint64_t last) {
    std::vector<uint64_t> keys;
    std::vector<ColdKey> added;
    std::vector<float> floats;
    uint64_t sum = 0;
    for_each_merged(runs, first, last, [&](const RunReader& entry) {
        if (entry.removed()) return;
        if (entry.value().size() != row_bytes())
            reject("row", entry.key(), std::to_string(entry.value().size()) + " bytes", "those of a row of this table");
        const auto* packed = reinterpret_cast<const std::byte*>(entry.value().data());
        const Statistics s = check_packed(entry.key(), packed, floats);
        keys.push_back(entry.key());
        added.push_back({entry.key(), s.last_seen_s, s.importance});
        sum += hash(entry.key(), packed);
    });
    std::vector<uint8_t> present(keys.size());
    cold_.contains(keys, present.data());
    for (size_t i = 0; i < keys.size(); ++i)
        if (present[i] || (index_.size() != 0 && find(keys[i]) != kNoRow))
            reject("row", keys[i], "one already", "a key without a row");
    cold_.insert(added);
    cold_sum_ += sum;
    digest_ += sum;
}

}  // namespace springtide
