// Table: the rows of one field. A row is the weights of one key, the optimizer's state behind them, and its statistics.
//
// Threads: const calls may run together, any other wants to be alone. Batch calls take a number of threads and cut the
// batch among them. Every result is a function of the calls made, never of addresses, time or threads: a row is the work
// of one thread, sums over rows are of integers, sums within a row run in a fixed order, first weights come from the key.
// Ownership: the table owns its rows; they never move in memory while they live. Arrays passed in are only read.
// Keys: any uint64. A missing key is never an error unless said so: it looks up as zeros and is passed over by update.
// Rows: a row number names a row while it lives; kNoRow stands for a key without one. One find() or admit() per batch
// gives the numbers, everything else of the batch goes by them.
// Cost: one probe and one row per key. Growing never stops the world: see key_index.h; rows come in chunks of 2 MiB.
// Budget: never more than most_rows() rows, a number that only depends on the budget, so that what is admitted does not
// depend on what came and went before. What memory_bytes() says is at most the budget and some chunks of 2 MiB.
// Failure: std::invalid_argument for bad input, with the table unchanged; std::bad_alloc or std::length_error when full.
//
// A packed row, little-endian, which is also what the digest covers:
//     weights f32[dim], state f32[s], count u32, last_seen_s u32, importance f32, unsettled f32
//
// Changes: a row is touched when it is made or updated. begin_changes() freezes what was touched and removed since it
// was last called; collect() copies frozen rows out a few at a time, between batches, while training goes on: a frozen
// row that is about to change is copied first. take_collected() hands the whole set over, finish() sorts and hashes it
// in any thread, settle() folds that sum into the digest and ends the set. take_changes() is all of it in one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "table/change_set.h"
#include "table/chunked_rows.h"
#include "table/initializer.h"
#include "table/key_index.h"
#include "table/optimizers/optimizer.h"
#include "table/row_history.h"
#include "table/row_marks.h"
#include "memory/slices.h"
#include "table/statistics.h"

namespace springtide {

class Table {
public:
    static constexpr size_t kNoBudget = ~size_t{0};

    // dim >= 1; half_life_s > 0: after so many seconds of log time importance counts half.
    Table(size_t dim, std::unique_ptr<Optimizer> optimizer, UniformInitializer initializer, double half_life_s,
          size_t budget_bytes = kNoBudget);

    size_t dim() const { return dim_; }
    size_t state_floats() const { return state_floats_; }
    size_t row_bytes() const { return rows_.row_bytes() - kKeyBytes; }
    size_t size() const { return index_.size(); }
    size_t most_rows() const { return most_rows_; }
    size_t memory_bytes() const;  // rows, index, marks and the open set: what the process grew by

    // rows[i] = the row of keys[i], kNoRow where missing.
    void find(std::span<const uint64_t> keys, uint32_t* rows, size_t threads = 1) const;

    // Gives a row to every key that has none, first come, first served until there are most_rows(), and says all their
    // rows in rows[i], kNoRow where it was refused; returns how many got one. Repeated keys count once.
    size_t admit(std::span<const uint64_t> keys, uint32_t* rows, uint32_t at_s);

    // The same for keys known to be distinct and to have no row, which spares looking for them; that is not checked.
    size_t admit_new(std::span<const uint64_t> keys, uint32_t* rows, uint32_t at_s);

    // Of a living row. Weights stay there until the row is removed.
    uint64_t key_of(uint32_t row) const { return KeyOf{rows_}(row); }
    const float* weights(uint32_t row) const { return reinterpret_cast<const float*>(packed(row)); }

    // One optimizer step per row with gradients[i * dim ..], then its statistics; counts[i] >= 1 occurrences at at_s.
    // `rows` are those of `keys`, which may be missing (kNoRow, passed over) but must not repeat: that is not checked.
    // Refuses a count of 0 and a gradient element that is not finite or beyond kGradientLimit, of missing keys as well.
    void update_rows(std::span<const uint32_t> rows, std::span<const uint64_t> keys, const float* gradients,
                     const uint32_t* counts, uint32_t at_s, size_t threads = 1);

    // resident[i] = 1 where keys[i] has a row, else 0.
    void contains(std::span<const uint64_t> keys, uint8_t* resident, size_t threads = 1) const;

    // weights[i * dim ..] of keys[i]; zeros where missing.
    void lookup(std::span<const uint64_t> keys, float* weights, size_t threads = 1) const;

    // find() and update_rows(); refuses a repeated key as well.
    void update(std::span<const uint64_t> keys, const float* gradients, const uint32_t* counts, uint32_t at_s,
                size_t threads = 1);

    // Removes rows; returns how many there were.
    size_t remove(std::span<const uint64_t> keys);

    // Every key, ascending.
    std::vector<uint64_t> keys() const;

    // Packed rows, row_bytes() each. Refuses a missing key.
    void rows(std::span<const uint64_t> keys, std::byte* packed, size_t threads = 1) const;

    // Statistics; of a missing key {0, 0, 0, 1}, those of a row that was never seen.
    void statistics(std::span<const uint64_t> keys, Statistics* out, size_t threads = 1) const;

    // Sets rows to packed bytes, making those that are missing. Refuses a repeated key, floats that are not finite and
    // states the optimizer cannot have. Imported rows count as taken, except keys already touched or removed since the
    // last begin_changes(): those stay changes, or the next commit would miss them. The budget does not hold here.
    void import_rows(std::span<const uint64_t> keys, const std::byte* packed);

    // Freezes what changed since the last call, in constant time. One set at a time: refused until settle().
    void begin_changes();

    // Copies at most max_rows frozen rows, as of begin_changes(), into the open set; returns how many are left.
    size_t collect(size_t max_rows);

    // Frozen rows that are still to be collected.
    size_t frozen_rows() const { return frozen_rows_; }

    // The open set. Refused while rows are left to collect, and where no set is open.
    ChangeSet take_collected();

    // Keys and packed rows as of begin_changes(), whatever has changed since, until settle(). rows_before() refuses a key
    // that had no row then. Outside of a set: as they are now. The keys come in no meaningful order.
    std::vector<uint64_t> keys_before() const;
    void rows_before(std::span<const uint64_t> keys, std::byte* packed) const;

    // Ends the set that was taken: `touched_sum` is what finish() made of it.
    void settle(uint64_t touched_sum);

    // All of the above: what changed since the last call. A key made and removed in between is in `removed`.
    Changes take_changes();

    // Sum over rows of XXH64(packed row, seed = key), modulo 2^64: as of the last begin_changes(), and imports since.
    // From there to settle() the rows of the open set are missing from it.
    uint64_t digest() const { return digest_; }

    // The same sum, computed anew over every row as it is now.
    uint64_t scan_digest() const;

private:
    // A cell is the key, so that a row can say whose it is, and the packed row.
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

    // The same, and asks for as much of the row as weights of the usual length take.
    struct CellOf {
        const ChunkedRows& cells;

        uint64_t operator()(uint32_t row) const { return KeyOf{cells}(row); }
        [[gnu::always_inline]] void prefetch(uint32_t row) const {
            __builtin_prefetch(cells[row]);
            __builtin_prefetch(cells[row] + kLineBytes);
        }
    };

    enum class Stage { kNone, kCollecting, kTaken };

    std::byte* packed(uint32_t row) { return rows_[row] + kKeyBytes; }
    const std::byte* packed(uint32_t row) const { return rows_[row] + kKeyBytes; }
    float* weights(uint32_t row) { return reinterpret_cast<float*>(packed(row)); }
    float* state(uint32_t row) { return weights(row) + dim_; }
    Statistics& statistics_of(uint32_t row) { return *reinterpret_cast<Statistics*>(state(row) + state_floats_); }
    uint64_t hash(uint32_t row) const;
    uint32_t find(uint64_t key) const { return index_.find(key, KeyOf{rows_}); }

    bool open() const { return stage_ != Stage::kNone; }

    // visit(i, row of keys[i]), slices of the batch at the same time.
    template <class Cells, class Visit>
    void each_row(std::span<const uint64_t> keys, size_t threads, Visit visit) const {
        in_slices(keys.size(), threads, [&](size_t first, size_t last) {
            index_.find_each(keys.subspan(first, last - first), Cells{rows_},
                             [&](size_t i, uint32_t row) { visit(first + i, row); });
        });
    }

    uint32_t make(uint64_t key);
    uint32_t admit_one(uint64_t key, uint32_t at_s);  // kNoRow where the budget is spent
    void keep(uint32_t row);
    void collect_row(uint32_t row);
    void touch(uint32_t row);
    void prefetch(uint32_t row) const;
    void learn(uint32_t row, const float* gradient, uint32_t count, uint32_t at_s);
    void check_distinct(std::span<const uint64_t> keys, std::span<const uint32_t> rows);
    void check_update(std::span<const uint64_t> keys, const float* gradients, const uint32_t* counts) const;
    void check_packed(std::span<const uint64_t> keys, const std::byte* packed) const;

    size_t dim_, state_floats_;
    std::unique_ptr<Optimizer> optimizer_;
    UniformInitializer initializer_;
    Tracker tracker_;
    size_t most_rows_;
    KeyIndex index_;
    ChunkedRows rows_;
    RowMarks in_batch_;               // between two lines of check_distinct only

    RowMarks touched_;                // since the last begin_changes()
    size_t touched_rows_ = 0;
    std::vector<uint64_t> removed_;   // since then; may hold keys that came back
    uint64_t gone_sum_ = 0;           // hashes that touched and removed rows had then

    Stage stage_ = Stage::kNone;
    RowMarks frozen_;                 // rows of the open set that are not copied yet
    size_t frozen_rows_ = 0;
    uint32_t cursor_ = 0;             // no row below is frozen
    ChangeSet set_;
    RowHistory before_;               // rows first changed while a set is open, as of its begin_changes()
    RowMarks made_;                   // rows made while a set is open
    uint64_t digest_ = 0;
};

}  // namespace springtide
