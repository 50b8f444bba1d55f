#include "table/table.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "keys/xxh64.h"
#include "table/fixed_dim.h"
#include "table/optimizers/dot.h"
#include "table/rejection.h"

namespace springtide {
namespace {

constexpr size_t kPrefetchDistance = 12;  // rows
constexpr size_t kIndexBytes = 7;         // per key, for the index entry and flags, rounded up
constexpr size_t kAdmitBlock = 128;       // keys

size_t packed_bytes(size_t dim, size_t state_floats) {
    return (dim + state_floats) * sizeof(float) + sizeof(Statistics);
}

// The dot product of `a` and a rounded row, a sum over blocks.
float dot_rounded(const float* a, const RoundedRow& row, size_t dim) {
    return sum_of_blocks(dim, [&](size_t start, auto n) {
        float values[kBlock];
        for (size_t i = 0; i < n; ++i) values[i] = row.grid.value_of(row.weights[start + i]);
        return dot(a + start, values, n);
    });
}

// Whether the magnitude of a float exceeds the limit or is NaN: compared as integers, magnitudes keep their order and
// NaN exceeds every number.
bool exceeds_limit(const float* values, size_t n) {
    constexpr int32_t kLimit = std::bit_cast<int32_t>(kGradientLimit);
    int32_t exceeds = 0;
    for (size_t i = 0; i < n; ++i) {
        int32_t bits;
        std::memcpy(&bits, values + i, sizeof(bits));
        exceeds |= (bits & 0x7fffffff) > kLimit;
    }
    return exceeds != 0;
}

// Compared as integers: the exponent of infinities and NaN has all bits set.
bool all_finite(std::span<const float> values) {
    constexpr uint32_t kExponent = 0x7f800000;
    uint32_t infinite = 0;
    for (const float value : values) infinite |= (std::bit_cast<uint32_t>(value) & kExponent) == kExponent;
    return infinite == 0;
}

}  // namespace

Table::Table(size_t dim, std::unique_ptr<Optimizer> optimizer, UniformInitializer initializer, double half_life_s,
             size_t budget_bytes)
    : dim_(dim),
      state_floats_(optimizer->state_floats(dim)),
      optimizer_(std::move(optimizer)),
      initializer_(initializer),
      statistics_updater_(half_life_s),
      rows_(kKeyBytes + packed_bytes(dim_, state_floats_)),
      history_(packed_bytes(dim_, state_floats_)) {
    max_rows_ = budget_bytes / (rows_.row_bytes() + kIndexBytes);
}

size_t Table::memory_bytes() const {
    return index_.memory_bytes() + rows_.memory_bytes() + in_batch_.memory_bytes() + touched_.memory_bytes() +
           frozen_.memory_bytes() + removed_.capacity() * sizeof(uint64_t) + set_.memory_bytes() +
           history_.memory_bytes() + preserved_.memory_bytes() + created_.memory_bytes() + cold_.memory_bytes();
}

size_t Table::resident_row_bytes() const { return rows_.row_bytes() + kIndexBytes; }

uint64_t Table::hash(uint32_t row) const { return hash(key_of(row), packed(row)); }

uint64_t Table::hash(uint64_t key, const std::byte* packed) const { return xxh64(packed, row_bytes(), key); }

uint32_t Table::place_row(uint64_t key) {
    const uint32_t row = rows_.acquire();
    touched_.grow(rows_.bound());
    frozen_.grow(rows_.bound());
    std::memcpy(rows_[row], &key, sizeof(key));
    index_.insert(key, row, KeyOf{rows_});
    return row;
}

uint32_t Table::create_row(uint64_t key) {
    if (cold_.size() != 0) require_resident({&key, 1}, "create");
    const uint32_t row = place_row(key);
    if (open()) {
        created_.grow(rows_.bound());
        created_.set(row);
    }
    return row;
}

// Before the first change of a row: records that its hash is to be subtracted from the digest. Concurrent calls for
// different rows are safe.
void Table::touch(uint32_t row) {
    if (!touched_.set(row)) return;
    std::atomic_ref(touched_rows_).fetch_add(1, std::memory_order_relaxed);
    std::atomic_ref(outdated_sum_).fetch_add(hash(row), std::memory_order_relaxed);
}

[[gnu::always_inline]] inline void Table::prefetch(uint32_t row) const {
    touched_.prefetch(row);
    const std::byte* cell = rows_[row];
    for (size_t at = 0; at < rows_.row_bytes(); at += kLineBytes) __builtin_prefetch(cell + at);
    __builtin_prefetch(cell + rows_.row_bytes() - 1);
}

// While a set is open: stores a row before its first change. Not needed for a row created since begin_changes(): an
// earlier row of the same key was stored when it was removed.
void Table::preserve(uint32_t row) {
    if (frozen_.is_set(row)) collect_row(row);
    if (touched_.is_set(row) || created_.is_set(row)) return;
    history_.store(key_of(row), packed(row));
    preserved_.grow(rows_.bound());
    preserved_.set(row);
}

void Table::preserve_rows(std::span<const uint32_t> rows, std::span<const uint64_t> keys) {
    for (size_t i = 0; i < rows.size(); ++i) {
        const size_t ahead = i + kPrefetchDistance;
        if (ahead < rows.size() && rows[ahead] != kNoRow) {
            prefetch(rows[ahead]);
            history_.prefetch(keys[ahead]);
        }
        if (rows[i] != kNoRow) preserve(rows[i]);
    }
}

void Table::collect_row(uint32_t row) {
    set_.add(key_of(row), packed(row));
    frozen_.clear(row);
    --frozen_rows_;
}

void Table::find(std::span<const uint64_t> keys, uint32_t* rows, size_t threads) const {
    each_row<KeyOf>(keys, threads, [&](size_t i, uint32_t row) { rows[i] = row; });
}

// In small blocks, so that the index lines read by find() are still cached when keys are inserted.
size_t Table::admit(std::span<const uint64_t> keys, uint32_t* rows, uint32_t at_s) {
    const size_t before = size();
    for (size_t start = 0; start < keys.size(); start += kAdmitBlock) {
        const auto block = keys.subspan(start, std::min(kAdmitBlock, keys.size() - start));
        find(block, rows + start);
        for (size_t i = 0; i < block.size(); ++i)
            if (rows[start + i] == kNoRow) {
                const uint32_t row = find(block[i]);  // not kNoRow if the key occurred earlier in the batch
                rows[start + i] = row == kNoRow ? admit_one(block[i], at_s) : row;
            }
    }
    return size() - before;
}

size_t Table::admit_new(std::span<const uint64_t> keys, uint32_t* rows, uint32_t at_s) {
    const size_t before = size();
    for (size_t i = 0; i < keys.size(); ++i) {
        if (i + kPrefetchDistance < keys.size()) index_.prefetch(keys[i + kPrefetchDistance]);
        rows[i] = admit_one(keys[i], at_s);
    }
    return size() - before;
}

uint32_t Table::admit_one(uint64_t key, uint32_t at_s) {
    if (size() >= max_rows_) return kNoRow;
    const uint32_t row = create_row(key);
    initializer_.fill(key, weights(row), dim_);
    optimizer_->init(state(row), dim_);
    statistics_of(row) = {0, at_s, 0.0f, 1.0f, 0.0f};
    touched_rows_ += touched_.set(row);
    return row;
}

void Table::contains(std::span<const uint64_t> keys, uint8_t* resident, size_t threads) const {
    each_row<KeyOf>(keys, threads, [&](size_t i, uint32_t row) {
        resident[i] = row != kNoRow || (cold_.size() != 0 && cold_.find(keys[i]) != nullptr);
    });
}

void Table::lookup(std::span<const uint64_t> keys, float* out, size_t threads) const {
    require_resident(keys, "lookup");
    with_dim(dim_, [&](auto dim) {
        each_row<CellOf>(keys, threads, [&](size_t i, uint32_t row) {
            if (row == kNoRow) std::memset(out + i * dim, 0, dim * sizeof(float));
            else std::memcpy(out + i * dim, weights(row), dim * sizeof(float));
        });
    });
}

void Table::update_row(uint32_t row, const RowGradients& gradients, size_t i, uint32_t at_s, const RowGrid& grid) {
    float* w = weights(row);
    const float* const gradient = gradients.sums + i * dim_;
    UpdateNorms norms = with_dim(dim_, [&](auto n) {
        const float squares = gradients.squares ? gradients.squares[i] : dot(gradient, gradient, n);
        return UpdateNorms{dot(gradient, w, n), dot(w, w, n), squares / static_cast<float>(n), 0};
    });
    if (grid.step != 0) norms.gradient_dot_weights = dot_rounded(gradient, {w, grid}, dim_);
    norms.step_squared = optimizer_->step(w, state(row), gradient, dim_);
    statistics_updater_.apply(statistics_of(row), norms, gradients.counts[i], at_s);
}

void Table::check_update(std::span<const uint64_t> keys, const RowGradients& gradients) const {
    const auto [sums, squares, counts] = gradients;
    const bool counted = std::find(counts, counts + keys.size(), 0u) == counts + keys.size();
    if (counted && !exceeds_limit(sums, keys.size() * dim_)) return;
    for (size_t i = 0; i < keys.size(); ++i) {
        if (counts[i] == 0) reject("counts", keys[i], "0", "at least 1");
        for (size_t j = 0; j < dim_; ++j)
            if (exceeds_limit(sums + i * dim_ + j, 1))
                reject("gradient", keys[i], std::to_string(sums[i * dim_ + j]),
                       "finite numbers of at most 1e17");
    }
}

// Duplicates among resident keys are detected by flags; only missing keys need sorting.
void Table::check_distinct(std::span<const uint64_t> keys, std::span<const uint32_t> rows) {
    in_batch_.grow(rows_.bound());
    std::vector<uint64_t> missing;
    const uint64_t* duplicate = nullptr;
    for (size_t i = 0; i < keys.size(); ++i) {
        if (rows[i] == kNoRow) missing.push_back(keys[i]);
        else if (!in_batch_.set(rows[i])) duplicate = &keys[i];
    }
    for (const uint32_t row : rows)
        if (row != kNoRow) in_batch_.clear(row);
    if (duplicate == nullptr) duplicate = first_duplicate(missing);
    if (duplicate != nullptr)
        reject("keys", *duplicate, "it twice", "distinct keys. hint: unique() and sum the gradients");
}

void Table::update_rows(std::span<const uint32_t> rows, std::span<const uint64_t> keys, const RowGradients& gradients,
                        uint32_t at_s, size_t threads, std::span<const RoundedRow> read) {
    check_update(keys, gradients);
    if (open()) preserve_rows(rows, keys);
    in_slices(rows.size(), threads, [&](size_t first, size_t last) {
        for (size_t i = first; i < last; ++i) {
            const size_t ahead = i + kPrefetchDistance;
            if (ahead < last && rows[ahead] != kNoRow) prefetch(rows[ahead]);
            if (rows[i] == kNoRow) continue;
            touch(rows[i]);
            update_row(rows[i], gradients, i, at_s, read.empty() ? RowGrid{} : read[i].grid);
        }
    });
}

void Table::update(std::span<const uint64_t> keys, const float* gradients, const uint32_t* counts, uint32_t at_s,
                   size_t threads) {
    require_resident(keys, "update");
    std::vector<uint32_t> rows(keys.size());
    find(keys, rows.data(), threads);
    check_distinct(keys, rows);
    update_rows(rows, keys, {gradients, nullptr, counts}, at_s, threads);
}

size_t Table::remove(std::span<const uint64_t> keys) {
    require_resident(keys, "remove");
    const size_t before = index_.size();
    for (const uint64_t key : keys) {
        const uint32_t row = find(key);
        if (row == kNoRow) continue;
        if (open()) preserve(row);
        touch(row);  // like any change; the flag is cleared because the row number may be reused for another key
        touched_.clear(row);
        created_.clear(row);
        preserved_.clear(row);
        --touched_rows_;
        removed_.push_back(key);
        index_.erase(key, row);
        rows_.release(row);
    }
    return before - index_.size();
}

void Table::rows(std::span<const uint64_t> keys, std::byte* out, size_t threads) const {
    require_resident(keys, "rows");
    std::vector<uint32_t> rows(keys.size());
    find(keys, rows.data(), threads);
    for (size_t i = 0; i < keys.size(); ++i)
        if (rows[i] == kNoRow) reject("row", keys[i], "none", "a resident key. hint: call contains() first");
    in_slices(keys.size(), threads, [&](size_t first, size_t last) {
        for (size_t i = first; i < last; ++i) {
            if (i + kPrefetchDistance < last) prefetch(rows[i + kPrefetchDistance]);
            std::memcpy(out + i * row_bytes(), packed(rows[i]), row_bytes());
        }
    });
}

void Table::statistics(std::span<const uint64_t> keys, Statistics* out, size_t threads) const {
    each_row<CellOf>(keys, threads, [&](size_t i, uint32_t row) {
        out[i] = row == kNoRow ? Statistics{0, 0, 0.0f, 1.0f, 0.0f} : statistics_of(row);
        if (row != kNoRow || cold_.size() == 0) return;
        if (const ColdKey* cold = cold_.find(keys[i])) {
            out[i].last_seen_s = cold->last_seen_s;
            out[i].importance = cold->importance;
        }
    });
}

// A heap of the smallest keys so far, the largest of them on top.
std::vector<uint64_t> Table::keys(size_t most) const {
    std::vector<uint64_t> keys;
    keys.reserve(std::min(most, size()));
    const auto add = [&](uint64_t key) {
        if (most >= size()) {
            keys.push_back(key);
        } else if (keys.size() < most) {
            keys.push_back(key);
            std::push_heap(keys.begin(), keys.end());
        } else if (most > 0 && key < keys.front()) {
            std::pop_heap(keys.begin(), keys.end());
            keys.back() = key;
            std::push_heap(keys.begin(), keys.end());
        }
    };
    index_.for_each(KeyOf{rows_}, [&](uint64_t key, uint32_t) { add(key); });
    cold_.for_each([&](const ColdKey& cold) { add(cold.key); });
    std::sort(keys.begin(), keys.end());
    return keys;
}

Statistics Table::check_packed(uint64_t key, const std::byte* packed, std::vector<float>& floats) const {
    floats.resize(dim_ + state_floats_);
    std::memcpy(floats.data(), packed, floats.size() * sizeof(float));
    Statistics s;
    std::memcpy(&s, packed + floats.size() * sizeof(float), sizeof(s));
    if (!all_finite(floats)) reject("row", key, "weights or state that are not finite", "finite numbers");
    if (!optimizer_->valid_state(floats.data() + dim_, dim_))
        reject("row", key, "a state its optimizer never has", "a row of the same optimizer");
    if (!valid(s))
        reject("row", key,
               "importance " + std::to_string(s.importance) + ", unsettled " + std::to_string(s.unsettled) +
                   ", curvature " + std::to_string(s.curvature),
               "importance >= 0, 0 <= unsettled <= 1, curvature >= 0");
    return s;
}

void Table::import_rows(std::span<const uint64_t> keys, const std::byte* from) {
    std::vector<float> floats;
    for (size_t i = 0; i < keys.size(); ++i) check_packed(keys[i], from + i * row_bytes(), floats);
    require_resident(keys, "import");
    std::vector<uint32_t> rows(keys.size());
    find(keys, rows.data());
    check_distinct(keys, rows);
    std::sort(removed_.begin(), removed_.end());
    for (size_t i = 0; i < keys.size(); ++i, from += row_bytes()) {
        const bool missing = rows[i] == kNoRow;
        const uint32_t row = missing ? create_row(keys[i]) : rows[i];
        const bool returned = missing && std::binary_search(removed_.begin(), removed_.end(), keys[i]);
        if (returned) touched_rows_ += touched_.set(row);
        const bool settled = !touched_.is_set(row);
        if (settled && !missing) {
            digest_ -= hash(row);
            if (open()) preserve(row);
        }
        std::memcpy(packed(row), from, row_bytes());
        if (settled) digest_ += hash(row);
    }
}

// From one begin_changes() to the next the digest changes by the outdated hashes, subtracted here, and by the hashes of
// the touched rows, which finish() computes and settle() adds. `rest_sum` is the digest in between.
void Table::begin_changes() {
    if (stage_ != Stage::kNone)
        throw std::invalid_argument("changes: got a second set, wanted one at a time. hint: settle() ends a set");
    set_.row_bytes = row_bytes();
    set_.reserve(touched_rows_);
    set_.removed = std::exchange(removed_, {});
    set_.rest_sum = digest_ -= std::exchange(outdated_sum_, 0);
    std::swap(touched_, frozen_);
    frozen_rows_ = std::exchange(touched_rows_, 0);
    cursor_ = 0;
    stage_ = Stage::kCollecting;
}

size_t Table::collect(size_t max_rows) {
    for (; max_rows > 0 && frozen_rows_ > 0; --max_rows) {
        cursor_ = static_cast<uint32_t>(frozen_.next(cursor_));
        collect_row(cursor_);
    }
    return frozen_rows_;
}

ChangeSet Table::release_collected() {
    if (stage_ != Stage::kCollecting || frozen_rows_ > 0)
        throw std::invalid_argument("changes: got an incomplete set, wanted a complete one. hint: collect() the rest");
    stage_ = Stage::kReleased;
    return std::exchange(set_, {});
}

std::vector<uint64_t> Table::keys_before() const {
    std::vector<uint64_t> keys;
    index_.for_each(KeyOf{rows_}, [&](uint64_t key, uint32_t row) {
        if (!created_.is_set(row)) keys.push_back(key);
    });
    cold_.for_each([&](const ColdKey& cold) { keys.push_back(cold.key); });
    for (size_t i = 0; i < history_.size(); ++i) {
        const uint32_t row = find(history_.key(i));
        if (row == kNoRow || created_.is_set(row)) keys.push_back(history_.key(i));
    }
    return keys;
}

// Most rows are as they were and need no search in the history.
void Table::rows_before(std::span<const uint64_t> keys, std::byte* out, uint8_t* cold) const {
    std::vector<uint32_t> rows(keys.size());
    find(keys, rows.data());
    const auto resident = [&](size_t i) { return rows[i] != kNoRow && !created_.is_set(rows[i]); };
    const auto as_it_was = [&](size_t i) { return resident(i) && !preserved_.is_set(rows[i]); };
    for (size_t i = 0; i < keys.size(); ++i) {
        const size_t ahead = i + kPrefetchDistance, farther = ahead + kPrefetchDistance;
        if (farther < keys.size() && !as_it_was(farther)) history_.prefetch(keys[farther]);
        if (ahead < keys.size()) {
            if (as_it_was(ahead)) prefetch(rows[ahead]);
            else history_.prefetch_row(keys[ahead]);
        }
        cold[i] = rows[i] == kNoRow && cold_.size() != 0 && cold_.find(keys[i]) != nullptr;
        if (cold[i]) continue;
        const std::byte* from = as_it_was(i) ? packed(rows[i]) : history_.find(keys[i]);
        if (from == nullptr && !resident(i)) reject("row", keys[i], "none at that time", "a key that had a row");
        std::memcpy(out + i * row_bytes(), from == nullptr ? packed(rows[i]) : from, row_bytes());
    }
}

void Table::settle(uint64_t touched_sum) {
    if (stage_ != Stage::kReleased)
        throw std::invalid_argument("changes: got a sum, wanted a collected set before it. hint: release_collected()");
    digest_ += touched_sum;
    history_.clear();
    created_ = RowFlags();
    preserved_ = RowFlags();
    stage_ = Stage::kNone;
}

Changes Table::drain_changes() {
    begin_changes();
    collect(frozen_rows_);
    Changes changes = finish(release_collected());
    settle(changes.touched_sum);
    return changes;
}

uint64_t Table::scan_digest() const {
    uint64_t sum = cold_sum_;
    index_.for_each(CellOf{rows_}, [&](uint64_t, uint32_t row) { sum += hash(row); });
    return sum;
}

}  // namespace springtide
