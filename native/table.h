// Table: the rows of one field. A row is the weights of one key, the optimizer's state behind them, and its statistics.
//
// Threads: not thread-safe; one call at a time. Every result is a function of the calls made, never of addresses, time
// or threads: sums run in a fixed order, first weights come from the key.
// Ownership: the table owns its rows; they never move in memory while they live. Arrays passed in are only read.
// Keys: any uint64. A missing key is never an error unless said so: it looks up as zeros and is passed over by update.
// Cost: one probe and one row per key. Growing is amortised: the index doubles, rows come in chunks of 256 KiB.
// Failure: std::invalid_argument for bad input, with the table unchanged; std::bad_alloc or std::length_error when full.
//
// A packed row, little-endian, which is also what the digest covers:
//     weights f32[dim], state f32[s], count u32, last_seen_s u32, importance f32, unsettled f32
//
// Changes: a row is touched when it is made or updated. take_changes() hands over what was touched and removed since it
// was last called; digest() is the content as of that call, plus what was imported since.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "chunked_rows.h"
#include "initializer.h"
#include "key_index.h"
#include "optimizer.h"

namespace freshet {

struct Statistics {
    uint32_t count;        // occurrences in the batches this row learned from; stops at the largest uint32
    uint32_t last_seen_s;  // log time of the latest of them, or of the admission, seconds since 1970
    float importance;      // decayed sum of |<gradient, weights>|, as of last_seen_s
    float unsettled;       // moving average of the relative step; 1 before the first update
};

struct Changes {
    std::vector<uint64_t> touched;  // resident, ascending
    std::vector<uint64_t> removed;  // not resident, ascending
};

class Table {
public:
    // dim >= 1; half_life_s > 0: after so many seconds of log time importance counts half.
    Table(size_t dim, std::unique_ptr<Optimizer> optimizer, UniformInitializer initializer, double half_life_s);

    size_t dim() const { return dim_; }
    size_t state_floats() const { return state_floats_; }
    size_t row_bytes() const { return rows_.row_bytes(); }
    size_t size() const { return index_.size(); }
    size_t memory_bytes() const;

    // Gives a row to every key that has none; returns how many got one. Repeated keys count once.
    size_t admit(std::span<const uint64_t> keys, uint32_t at_s);

    // resident[i] = 1 where keys[i] has a row, else 0.
    void contains(std::span<const uint64_t> keys, uint8_t* resident) const;

    // weights[i * dim ..] of keys[i]; zeros where missing.
    void lookup(std::span<const uint64_t> keys, float* weights) const;

    // One optimizer step per key with gradients[i * dim ..], then its statistics; counts[i] >= 1 occurrences at at_s.
    // Refuses a repeated key, a count of 0, and a gradient element that is not finite or beyond kGradientLimit.
    // Importance and convergence: see learn() in the .cc; time never runs backwards inside a row.
    void update(std::span<const uint64_t> keys, const float* gradients, const uint32_t* counts, uint32_t at_s);

    // Removes rows; returns how many there were.
    size_t remove(std::span<const uint64_t> keys);

    // Every key, ascending.
    std::vector<uint64_t> keys() const { return index_.sorted_keys(); }

    // Packed rows, row_bytes() each. Refuses a missing key.
    void rows(std::span<const uint64_t> keys, std::byte* packed) const;

    // Statistics; of a missing key {0, 0, 0, 1}, those of a row that was never seen.
    void statistics(std::span<const uint64_t> keys, Statistics* out) const;

    // Sets rows to packed bytes, making those that are missing. Refuses a repeated key, floats that are not finite and
    // states the optimizer cannot have. Imported rows count as taken, except keys already touched or removed since the
    // last take_changes(): those stay changes, or the next commit would miss them.
    void import_rows(std::span<const uint64_t> keys, const std::byte* packed);

    // What changed since the last call; folds it into the digest. A key made and removed in between is in `removed`.
    Changes take_changes();

    // Sum over rows of XXH64(packed row, seed = key), modulo 2^64; as of the last take_changes(), and imports since.
    uint64_t digest() const { return settled_sum_ + touched_sum_; }

    // The same sum, computed anew over every row as it is now.
    uint64_t scan_digest() const;

private:
    enum Flag : uint8_t { kTouched = 1, kInBatch = 2 };

    float* weights(uint32_t row) { return reinterpret_cast<float*>(rows_[row]); }
    const float* weights(uint32_t row) const { return reinterpret_cast<const float*>(rows_[row]); }
    float* state(uint32_t row) { return weights(row) + dim_; }
    Statistics& statistics_of(uint32_t row) { return *reinterpret_cast<Statistics*>(state(row) + state_floats_); }
    uint64_t hash(uint64_t key, uint32_t row) const;

    uint32_t make(uint64_t key);
    void touch(uint64_t key, uint32_t row);
    void learn(uint32_t row, const float* gradient, uint32_t count, uint32_t at_s);
    std::vector<uint32_t> find_distinct(std::span<const uint64_t> keys);
    void check_update(std::span<const uint64_t> keys, const float* gradients, const uint32_t* counts) const;
    void check_packed(std::span<const uint64_t> keys, const std::byte* packed) const;

    size_t dim_, state_floats_;
    std::unique_ptr<Optimizer> optimizer_;
    UniformInitializer initializer_;
    double half_life_s_;
    KeyIndex index_;
    ChunkedRows rows_;
    std::vector<uint8_t> flags_;      // per row number
    std::vector<uint64_t> touched_;   // may hold keys removed since, and those twice that came back
    std::vector<uint64_t> removed_;   // may hold keys that came back
    uint64_t settled_sum_ = 0;        // hashes of the rows not touched
    uint64_t touched_sum_ = 0;        // hashes that touched and removed rows had at the last take_changes()
};

}  // namespace freshet
