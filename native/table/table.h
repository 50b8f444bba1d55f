// Table: rows by key. A row is the weights of one key, their optimizer state and statistics.
//
// Threads: concurrent const calls are safe, any other call requires exclusive access. Batch calls split the batch among
// a given number of threads. Results are a function of the calls made, not of addresses, time or threads: a row is
// processed by one thread, sums over rows are integer sums, sums within a row have a fixed order, initial weights are a
// function of the key.
// Ownership: the table owns its rows; a row never moves in memory. Input arrays are only read.
// Keys: any uint64. Unless stated otherwise a missing key is not an error: lookup gives zeros, update skips it.
// Rows: a row number is valid until the row is removed; kNoRow denotes a key without a row. One find() or admit() per
// batch returns the numbers, and all other calls of the batch use them.
// Cost: one probe and one row access per key. Growth is incremental, see index/key_index.h; row memory is allocated in
// chunks of 2 MiB.
// Budget: at most max_rows() rows. The limit is a function of the budget alone, so admission does not depend on earlier
// admissions and removals. memory_bytes() exceeds the budget by a few chunks of 2 MiB at most.
// Failure: std::invalid_argument for bad input, with the table unchanged; std::bad_alloc or std::length_error when
// full.
//
// Layout of a packed row, little-endian; the digest covers these bytes:
//     weights f32[dim], state f32[s], count u32, last_seen_s u32, importance f32, unsettled f32, curvature f32
//
// Changes: a row is touched when it is created or updated. begin_changes() freezes the rows touched and removed since
// its last call. collect() copies frozen rows a few at a time, between batches, while training continues; a frozen row
// is copied before its next change. release_collected() returns the complete set, finish() sorts and hashes it in any
// thread, settle() adds the resulting sum to the digest and ends the set. drain_changes() does all of this in one call.
//
// Cold rows: swap_out() drops unchanged rows whose bytes the caller has on disk; the table keeps their keys. A cold row
// counts as a row, and the digest covers it, but only contains(), keys(), statistics() and cold() read it: other calls
// reject its key until swap_in() brings the row back. A table without cold rows pays nothing for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "memory/slices.h"
#include "quantizer/rounding.h"
#include "runs/sorted_run.h"
#include "table/changes/change_set.h"
#include "table/changes/row_flags.h"
#include "table/changes/row_history.h"
#include "table/chunked_rows.h"
#include "table/cold/cold_keys.h"
#include "table/index/key_index.h"
#include "table/initializer.h"
#include "table/optimizers/optimizer.h"
#include "table/statistics.h"

namespace springtide {

// The gradients of n rows in one batch. The caller owns the memory.
struct RowGradients {
    const float* sums;       // [n][dim], over the samples of the batch
    const float* squares;    // [n], sum over the samples of the squared length; null if a row has one sample
    const uint32_t* counts;  // [n] occurrences, at least 1
};

class Table {
public:
    static constexpr size_t kNoBudget = ~size_t{0};

    // dim >= 1; half_life_s > 0: importance and curvature decay to half in this many seconds of log time.
    Table(size_t dim, std::unique_ptr<Optimizer> optimizer, UniformInitializer initializer, double half_life_s,
          size_t budget_bytes = kNoBudget);

    size_t dim() const { return dim_; }
    size_t state_floats() const { return state_floats_; }
    size_t row_bytes() const { return rows_.row_bytes() - kKeyBytes; }
    size_t size() const { return index_.size() + cold_.size(); }
    size_t resident_rows() const { return index_.size(); }
    size_t cold_rows() const { return cold_.size(); }
    size_t resident_row_bytes() const;  // of one row with its index entry and flags
    size_t cold_bytes() const { return cold_.memory_bytes(); }
    size_t max_rows() const { return max_rows_; }
    size_t memory_bytes() const;  // rows, index, flags and the open set: the growth of the process

    // rows[i] = the row of keys[i], kNoRow if missing.
    void find(std::span<const uint64_t> keys, uint32_t* rows, size_t threads = 1) const;

    // Creates a row for every key without one, in order, until there are max_rows(). rows[i] = the row of keys[i],
    // kNoRow if the budget is spent. Returns the number of rows created; a repeated key gets one row.
    size_t admit(std::span<const uint64_t> keys, uint32_t* rows, uint32_t at_s);

    // The same for distinct keys without a row, which is not checked; avoids the search.
    size_t admit_new(std::span<const uint64_t> keys, uint32_t* rows, uint32_t at_s);

    // Of an existing row. The pointer is valid until the row is removed.
    uint64_t key_of(uint32_t row) const { return KeyOf{rows_}(row); }
    const float* weights(uint32_t row) const { return reinterpret_cast<const float*>(packed(row)); }
    float importance(uint32_t row) const { return statistics_of(row).importance; }

    // Applies one optimizer step with the gradient to each row and updates its statistics at at_s. `rows` are the rows
    // of `keys`: kNoRow is skipped; repeated rows are not allowed, which is not checked. Rejects a count of 0 and a
    // gradient element that is not finite or beyond kGradientLimit, also for missing keys.
    // `read`: the rows as the loss depends on them, where they were rounded; empty otherwise. Importance is computed of
    // what was read.
    void update_rows(std::span<const uint32_t> rows, std::span<const uint64_t> keys, const RowGradients& gradients,
                     uint32_t at_s, size_t threads = 1, std::span<const RoundedRow> read = {});

    // resident[i] = 1 if keys[i] has a row, otherwise 0.
    void contains(std::span<const uint64_t> keys, uint8_t* resident, size_t threads = 1) const;

    // weights[i * dim ..] of keys[i]; zeros if missing.
    void lookup(std::span<const uint64_t> keys, float* weights, size_t threads = 1) const;

    // find() and update_rows(), each gradient as that of one sample; rejects a repeated key.
    void update(std::span<const uint64_t> keys, const float* gradients, const uint32_t* counts, uint32_t at_s,
                size_t threads = 1);

    // Removes rows; returns the number removed. Rejects a cold row.
    size_t remove(std::span<const uint64_t> keys);

    // All keys, ascending, or the smallest `most`.
    std::vector<uint64_t> keys(size_t most = ~size_t{0}) const;

    // Packed rows, row_bytes() each. Rejects a missing key.
    void rows(std::span<const uint64_t> keys, std::byte* packed, size_t threads = 1) const;

    // Statistics; {0, 0, 0, 1, 0} for a missing key. Of a cold row last_seen_s and importance are given, the rest is as
    // for a missing key.
    void statistics(std::span<const uint64_t> keys, Statistics* out, size_t threads = 1) const;

    // Sets rows to packed bytes and creates missing ones. Rejects a repeated key, floats that are not finite and
    // invalid optimizer states. Imported rows count as committed, except keys touched or removed since the last
    // begin_changes(): those stay changed, otherwise the next commit would miss them. Ignores the budget.
    void import_rows(std::span<const uint64_t> keys, const std::byte* packed);

    // Freezes the changes since the last call, in constant time. One set at a time: rejected until settle().
    void begin_changes();

    // Copies up to max_rows frozen rows, as of begin_changes(), to the open set; returns the number of frozen rows
    // left.
    size_t collect(size_t max_rows);

    // Frozen rows that are not yet collected.
    size_t frozen_rows() const { return frozen_rows_; }

    // Returns the open set. Rejected while frozen rows are left, and if no set is open.
    ChangeSet release_collected();

    // Keys and packed rows as of begin_changes(), until settle(); without an open set, the current ones. rows_before()
    // rejects a key that had no row then. The keys are in no particular order. cold[i] = 1 for a cold row, which is not
    // written: it has not changed since begin_changes().
    std::vector<uint64_t> keys_before() const;
    void rows_before(std::span<const uint64_t> keys, std::byte* packed, uint8_t* cold) const;

    // Ends the released set; `touched_sum` is the result of finish().
    void settle(uint64_t touched_sum);

    // All changes since the last call. A key created and removed in between is in `removed`.
    Changes drain_changes();

    // How much a row is worth to keep in memory: log2(1 + count) + last_seen_s / half-life, the logarithm of a decayed
    // frequency. Writes the worths of at most max_rows rows that may be swapped out, spread over all rows; returns
    // their number.
    size_t sample_worths(size_t max_rows, double* worths) const;

    // Drops at most max_rows rows of a worth up to `worth`, among the next max_scanned row numbers in a cycle; returns
    // the number of rows dropped. Rows changed since the last begin_changes() and those of `pinned` stay, and by chance
    // a few others. Rejected while a set is open. The caller has all rows as of the last begin_changes() on disk.
    size_t swap_out(double worth, size_t max_rows, size_t max_scanned,
                    std::span<const std::span<const uint64_t>> pinned);

    // Brings cold rows back, byte for byte as they were dropped; keys with a resident row are skipped. Returns the
    // number of rows brought back. Rejects a key without a row, a repeated one, and a row that is not the dropped one
    // as far as last_seen_s and importance show; the table is then unchanged.
    size_t swap_in(std::span<const uint64_t> keys, const std::byte* packed);

    // Makes a cold row of each value with a key in [first, last] of runs given oldest first; they count as committed.
    // Rejects a value of another size, rows as import_rows() does, and a key with a row; the table is then unchanged.
    // Memory beside the keys: 24 bytes per value. reserve_cold() avoids growth.
    void import_cold(std::span<const RunView> runs, uint64_t first, uint64_t last);
    void reserve_cold(size_t rows) { cold_.reserve(rows); }

    // cold[i] = 1 if keys[i] has a cold row, otherwise 0.
    void cold(std::span<const uint64_t> keys, uint8_t* cold) const { cold_.contains(keys, cold); }

    // Sum over rows of XXH64(packed row, seed = key), modulo 2^64, as of the last begin_changes() plus later imports.
    // Between begin_changes() and settle() it lacks the rows of the open set.
    uint64_t digest() const { return digest_; }

    // The same sum, recomputed over all current rows, cold ones as they were dropped.
    uint64_t scan_digest() const;

private:
    // A cell is the key and the packed row.
    static constexpr size_t kKeyBytes = sizeof(uint64_t);
    static constexpr size_t kLineBytes = 64;

    struct KeyOf {
        const ChunkedRows& cells;

        uint64_t operator()(uint32_t row) const {
            uint64_t key;
            std::memcpy(&key, cells[row], sizeof(key));
            return key;
        }
        [[gnu::always_inline]] void prefetch(uint32_t row) const { __builtin_prefetch(cells[row]); }
    };

    // The same, and prefetches as much of the row as weights of a common dim occupy.
    struct CellOf {
        const ChunkedRows& cells;

        uint64_t operator()(uint32_t row) const { return KeyOf{cells}(row); }
        [[gnu::always_inline]] void prefetch(uint32_t row) const {
            __builtin_prefetch(cells[row]);
            __builtin_prefetch(cells[row] + kLineBytes);
        }
    };

    enum class Stage { kNone, kCollecting, kReleased };

    std::byte* packed(uint32_t row) { return rows_[row] + kKeyBytes; }
    const std::byte* packed(uint32_t row) const { return rows_[row] + kKeyBytes; }
    float* weights(uint32_t row) { return reinterpret_cast<float*>(packed(row)); }
    float* state(uint32_t row) { return weights(row) + dim_; }
    Statistics& statistics_of(uint32_t row) { return *reinterpret_cast<Statistics*>(state(row) + state_floats_); }
    const Statistics& statistics_of(uint32_t row) const {
        return *reinterpret_cast<const Statistics*>(weights(row) + dim_ + state_floats_);
    }
    uint64_t hash(uint32_t row) const;
    uint64_t hash(uint64_t key, const std::byte* packed) const;
    uint32_t find(uint64_t key) const { return index_.find(key, KeyOf{rows_}); }

    bool open() const { return stage_ != Stage::kNone; }

    // Calls visit(i, row of keys[i]), slices of the batch in parallel.
    template <class Cells, class Visit>
    void each_row(std::span<const uint64_t> keys, size_t threads, Visit visit) const {
        in_slices(keys.size(), threads, [&](size_t first, size_t last) {
            index_.find_each(keys.subspan(first, last - first), Cells{rows_},
                             [&](size_t i, uint32_t row) { visit(first + i, row); });
        });
    }

    uint32_t place_row(uint64_t key);
    uint32_t create_row(uint64_t key);
    double worth_of(uint32_t row) const;
    bool may_swap_out(uint32_t row) const;
    void require_resident(std::span<const uint64_t> keys, const char* call) const;
    bool is_dropped(const ColdKey& cold, const std::byte* packed) const;
    uint32_t admit_one(uint64_t key, uint32_t at_s);  // kNoRow if the budget is spent
    void preserve(uint32_t row);
    void preserve_rows(std::span<const uint32_t> rows, std::span<const uint64_t> keys);
    void collect_row(uint32_t row);
    void touch(uint32_t row);
    void prefetch(uint32_t row) const;
    void update_row(uint32_t row, const RowGradients& gradients, size_t i, uint32_t at_s, const RowGrid& grid);
    void check_distinct(std::span<const uint64_t> keys, std::span<const uint32_t> rows);
    void check_update(std::span<const uint64_t> keys, const RowGradients& gradients) const;
    // The statistics of a packed row, which is valid; `floats` is memory for its numbers.
    Statistics check_packed(uint64_t key, const std::byte* packed, std::vector<float>& floats) const;

    size_t dim_, state_floats_;
    std::unique_ptr<Optimizer> optimizer_;
    UniformInitializer initializer_;
    StatisticsUpdater statistics_updater_;
    size_t max_rows_;
    KeyIndex index_;
    ChunkedRows rows_;
    RowFlags in_batch_;               // set inside check_distinct only

    ColdKeys cold_;
    uint64_t cold_sum_ = 0;           // sum of the hashes of cold rows
    uint32_t victim_ = 0;             // the row number at which swap_out() continues

    RowFlags touched_;                // since the last begin_changes()
    size_t touched_rows_ = 0;
    std::vector<uint64_t> removed_;   // since then; may contain keys that were created again
    uint64_t outdated_sum_ = 0;       // sum of the hashes that touched and removed rows had then

    Stage stage_ = Stage::kNone;
    RowFlags frozen_;                 // rows of the open set that are not copied yet
    size_t frozen_rows_ = 0;
    uint32_t cursor_ = 0;             // no row below it is frozen
    ChangeSet set_;
    RowHistory history_;              // rows changed while a set is open, as of its begin_changes()
    RowFlags preserved_;              // rows with an entry there under their present key
    RowFlags created_;                // rows created while a set is open
    uint64_t digest_ = 0;
};

}  // namespace springtide
