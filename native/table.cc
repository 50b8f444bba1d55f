#include "table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "dot.h"
#include "xxh64.h"

namespace freshet {
namespace {

constexpr float kSettling = 1.0f / 16;  // weight of the newest relative step
constexpr size_t kAhead = 8;
constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();
constexpr float kLargest = std::numeric_limits<float>::max();

static_assert(sizeof(Statistics) == 16 && alignof(Statistics) == 4, "statistics are part of the packed row");

[[noreturn]] void refuse(const char* what, uint64_t key, const std::string& got, const char* wanted) {
    throw std::invalid_argument(std::string(what) + " of key " + std::to_string(key) + ": got " + got + ", wanted " +
                                wanted);
}

size_t packed_bytes(size_t dim, size_t state_floats) {
    return (dim + state_floats) * sizeof(float) + sizeof(Statistics);
}

// The first key that stands twice, if any.
const uint64_t* repeated(std::vector<uint64_t>& keys) {
    std::sort(keys.begin(), keys.end());
    const auto at = std::adjacent_find(keys.begin(), keys.end());
    return at == keys.end() ? nullptr : &*at;
}

void sort_distinct(std::vector<uint64_t>& keys) {
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
}

}  // namespace

Table::Table(size_t dim, std::unique_ptr<Optimizer> optimizer, UniformInitializer initializer, double half_life_s)
    : dim_(dim),
      state_floats_(optimizer->state_floats(dim)),
      optimizer_(std::move(optimizer)),
      initializer_(initializer),
      half_life_s_(half_life_s),
      rows_(packed_bytes(dim_, state_floats_)) {}

size_t Table::memory_bytes() const {
    return index_.memory_bytes() + rows_.memory_bytes() + flags_.capacity() +
           (touched_.capacity() + removed_.capacity()) * sizeof(uint64_t);
}

uint64_t Table::hash(uint64_t key, uint32_t row) const { return xxh64(rows_[row], rows_.row_bytes(), key); }

uint32_t Table::make(uint64_t key) {
    const uint32_t row = rows_.take();
    if (flags_.size() < rows_.bound()) flags_.resize(rows_.bound());
    flags_[row] = 0;
    index_.insert(key, row);
    return row;
}

void Table::touch(uint64_t key, uint32_t row) {
    if (flags_[row] & kTouched) return;
    const uint64_t before = hash(key, row);
    settled_sum_ -= before;
    touched_sum_ += before;
    flags_[row] |= kTouched;
    touched_.push_back(key);
}

size_t Table::admit(std::span<const uint64_t> keys, uint32_t at_s) {
    const size_t before = index_.size();
    for (const uint64_t key : keys) {
        if (index_.find(key) != kNoRow) continue;
        const uint32_t row = make(key);
        initializer_.fill(key, weights(row), dim_);
        optimizer_->start(state(row), dim_);
        statistics_of(row) = {0, at_s, 0.0f, 1.0f};
        flags_[row] = kTouched;
        touched_.push_back(key);
    }
    return index_.size() - before;
}

void Table::contains(std::span<const uint64_t> keys, uint8_t* resident) const {
    std::vector<uint32_t> rows(keys.size());
    index_.find_all(keys, rows.data());
    for (size_t i = 0; i < keys.size(); ++i) resident[i] = rows[i] != kNoRow;
}

void Table::lookup(std::span<const uint64_t> keys, float* out) const {
    std::vector<uint32_t> rows(keys.size());
    index_.find_all(keys, rows.data());
    for (size_t i = 0; i < keys.size(); ++i, out += dim_) {
        if (i + kAhead < keys.size() && rows[i + kAhead] != kNoRow) __builtin_prefetch(weights(rows[i + kAhead]));
        if (rows[i] == kNoRow)
            std::fill_n(out, dim_, 0.0f);
        else
            std::copy_n(weights(rows[i]), dim_, out);
    }
}

// Importance is the first-order Taylor estimate of what the loss would lose without the row (Molchanov et al., ICLR 2017,
// equation 1; CVPR 2019, equation 7), summed over updates with exponential decay; convergence is 1 - unsettled. The
// references are pipeline/importance/score.py and convergence.py.
void Table::learn(uint32_t row, const float* gradient, uint32_t count, uint32_t at_s) {
    float* w = weights(row);
    Statistics& s = statistics_of(row);
    const float score = std::fabs(dot(gradient, w, dim_));
    const float length = std::sqrt(dot(w, w, dim_));
    const float moved = std::sqrt(optimizer_->step(w, state(row), gradient, dim_));
    float relative = moved > 0 ? moved / (moved + length) : 0.0f;
    if (!(relative <= 1)) relative = 1;  // lengths beyond float: as unsettled as can be

    const uint32_t elapsed_s = at_s > s.last_seen_s ? at_s - s.last_seen_s : 0;
    const double decay = elapsed_s == 0 ? 1.0 : std::exp2(-static_cast<double>(elapsed_s) / half_life_s_);
    s.importance = static_cast<float>(s.importance * decay) + score;
    if (!(s.importance <= kLargest)) s.importance = kLargest;  // never infinite: rows are compared by it
    s.unsettled = s.count == 0 ? relative : s.unsettled + kSettling * (relative - s.unsettled);
    s.last_seen_s = std::max(s.last_seen_s, at_s);
    s.count = count > kMost - s.count ? kMost : s.count + count;
}

void Table::check_update(std::span<const uint64_t> keys, const float* gradients, const uint32_t* counts) const {
    for (size_t i = 0; i < keys.size(); ++i) {
        if (counts[i] == 0) refuse("counts", keys[i], "0", "at least 1");
        for (size_t j = 0; j < dim_; ++j) {
            const float g = gradients[i * dim_ + j];
            if (!(std::fabs(g) <= kGradientLimit))
                refuse("gradient", keys[i], std::to_string(g), "finite numbers of at most 1e17");
        }
    }
}

// Rows of distinct keys. Resident keys are marked in flags_ while looking, so only missing ones need sorting.
std::vector<uint32_t> Table::find_distinct(std::span<const uint64_t> keys) {
    std::vector<uint32_t> rows(keys.size());
    std::vector<uint64_t> missing;
    index_.find_all(keys, rows.data());
    const uint64_t* twice = nullptr;
    for (size_t i = 0; i < keys.size(); ++i) {
        if (rows[i] == kNoRow) {
            missing.push_back(keys[i]);
        } else {
            if (flags_[rows[i]] & kInBatch) twice = &keys[i];
            flags_[rows[i]] |= kInBatch;
        }
    }
    for (const uint32_t row : rows)
        if (row != kNoRow) flags_[row] &= static_cast<uint8_t>(~kInBatch);
    if (twice == nullptr) twice = repeated(missing);
    if (twice != nullptr) refuse("keys", *twice, "it twice", "distinct keys. hint: unique() and sum the gradients");
    return rows;
}

void Table::update(std::span<const uint64_t> keys, const float* gradients, const uint32_t* counts, uint32_t at_s) {
    check_update(keys, gradients, counts);
    const std::vector<uint32_t> rows = find_distinct(keys);
    for (size_t i = 0; i < rows.size(); ++i) {
        if (i + kAhead < rows.size() && rows[i + kAhead] != kNoRow) __builtin_prefetch(weights(rows[i + kAhead]));
        if (rows[i] == kNoRow) continue;
        touch(keys[i], rows[i]);
        learn(rows[i], gradients + i * dim_, counts[i], at_s);
    }
}

size_t Table::remove(std::span<const uint64_t> keys) {
    const size_t before = index_.size();
    for (const uint64_t key : keys) {
        const uint32_t row = index_.find(key);
        if (row == kNoRow) continue;
        touch(key, row);  // its hash leaves the settled sum; take_changes() passes over the key in touched_
        removed_.push_back(key);
        index_.erase(key);
        rows_.release(row);
    }
    return before - index_.size();
}

void Table::rows(std::span<const uint64_t> keys, std::byte* packed) const {
    for (const uint64_t key : keys) {
        const uint32_t row = index_.find(key);
        if (row == kNoRow) refuse("row", key, "none", "a resident key. hint: ask contains() first");
        std::memcpy(packed, rows_[row], rows_.row_bytes());
        packed += rows_.row_bytes();
    }
}

void Table::statistics(std::span<const uint64_t> keys, Statistics* out) const {
    std::vector<uint32_t> rows(keys.size());
    index_.find_all(keys, rows.data());
    const size_t start = rows_.row_bytes() - sizeof(Statistics);
    for (size_t i = 0; i < keys.size(); ++i) {
        out[i] = {0, 0, 0.0f, 1.0f};
        if (rows[i] != kNoRow) std::memcpy(&out[i], rows_[rows[i]] + start, sizeof(Statistics));
    }
}

void Table::check_packed(std::span<const uint64_t> keys, const std::byte* packed) const {
    std::vector<float> floats(dim_ + state_floats_);
    Statistics s;
    for (const uint64_t key : keys) {
        std::memcpy(floats.data(), packed, floats.size() * sizeof(float));
        std::memcpy(&s, packed + floats.size() * sizeof(float), sizeof(s));
        const bool finite = std::all_of(floats.begin(), floats.end(), [](float f) { return std::isfinite(f); });
        if (!finite) refuse("row", key, "weights or state that are not finite", "finite numbers");
        if (!optimizer_->accepts(floats.data() + dim_, dim_))
            refuse("row", key, "a state its optimizer never has", "a row of the same optimizer");
        if (!(s.importance >= 0 && s.importance <= kLargest && s.unsettled >= 0 && s.unsettled <= 1))
            refuse("row", key, "importance " + std::to_string(s.importance) + ", unsettled " + std::to_string(s.unsettled),
                   "importance >= 0, 0 <= unsettled <= 1");
        packed += rows_.row_bytes();
    }
}

void Table::import_rows(std::span<const uint64_t> keys, const std::byte* packed) {
    check_packed(keys, packed);
    std::vector<uint32_t> rows = find_distinct(keys);
    sort_distinct(removed_);
    for (size_t i = 0; i < keys.size(); ++i, packed += rows_.row_bytes()) {
        const bool missing = rows[i] == kNoRow;
        if (missing) {
            rows[i] = make(keys[i]);
            if (std::binary_search(removed_.begin(), removed_.end(), keys[i])) {
                flags_[rows[i]] = kTouched;
                touched_.push_back(keys[i]);
            }
        }
        const bool settled = !(flags_[rows[i]] & kTouched);
        if (settled && !missing) settled_sum_ -= hash(keys[i], rows[i]);
        std::memcpy(rows_[rows[i]], packed, rows_.row_bytes());
        if (settled) settled_sum_ += hash(keys[i], rows[i]);
    }
}

Changes Table::take_changes() {
    Changes changes;
    sort_distinct(touched_);
    for (const uint64_t key : touched_) {
        const uint32_t row = index_.find(key);
        if (row == kNoRow) continue;
        flags_[row] &= static_cast<uint8_t>(~kTouched);
        settled_sum_ += hash(key, row);
        changes.touched.push_back(key);
    }
    sort_distinct(removed_);
    for (const uint64_t key : removed_)
        if (index_.find(key) == kNoRow) changes.removed.push_back(key);
    // Given back, not kept: after a restore or a first batch these would stay as large as the table.
    touched_ = {};
    removed_ = {};
    touched_sum_ = 0;
    return changes;
}

uint64_t Table::scan_digest() const {
    uint64_t sum = 0;
    index_.for_each([&](uint64_t key, uint32_t row) { sum += hash(key, row); });
    return sum;
}

}  // namespace freshet
