// ModelInput: from the keys of a batch to the input of the dense network and back, for all fields of a model.
//
// A field reads the rows of one table; several fields may read the same one. Keys are distinct per table, so a row that
// several fields read is found once and updated once, by the sum of their gradients.
//
// Calls per batch: find(), admit() or admit_missing() for keys to be admitted, gather(), learn() with the gradient of
// the gathered matrix. Each key is probed once; later calls use the row numbers found. There are two batches: find()
// sets the pending one, gather() makes it the active one, and learn() updates the active one. So the next batch may be
// found and admitted, which reads no weights, between gather() and learn() of the previous one. Tables are processed in
// parallel and independently, so results do not depend on the number of threads.
//
// To learn one batch late, defer() sets the active batch aside: the next one is found and gathered before
// learn_deferred() updates its rows.
//
// Not thread-safe. Between find() and learn() or learn_deferred() of a batch no rows may be removed. The caller owns the tables, which must
// outlive this object. Throws std::invalid_argument, with nothing changed, for invalid arguments; if a table rejects
// its part in learn(), other tables may have changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "batch/pooling.h"
#include "memory/workers.h"
#include "quantizer/rounding.h"
#include "table/table.h"

namespace springtide {

// The keys of one table in one batch: u distinct keys, over all of its fields. The caller owns the memory.
struct TableKeys {
    std::span<const uint64_t> keys;    // [u] distinct
    std::span<const uint32_t> counts;  // [u] occurrences in all fields, at least 1
};

// One field in one batch of n samples: m occurrences of its table's keys. The caller owns the memory.
struct FieldKeys {
    std::span<const int32_t> inverse;  // [m], positions in the keys of the table
    std::span<const int64_t> offsets;  // [n + 1], ascending from 0 to m
    std::span<const float> weights = {};  // [m], or none; see pooling.h
};

// Which rows of a table are read rounded, and how: those whose importance is below `below`.
struct RowRounding {
    Rounding rounding = Rounding::none;
    float below = std::numeric_limits<float>::infinity();
};

class ModelInput {
public:
    struct Field {
        size_t table;  // position in `tables`
        FieldPooling pooling;
    };

    // The matrix has the columns of the fields in order, then `dense_columns` more. `roundings`: none, or one per table.
    ModelInput(std::vector<Table*> tables, std::vector<Field> fields, size_t dense_columns, size_t threads,
               std::vector<RowRounding> roundings = {});

    size_t columns() const { return columns_; }

    // Sets the pending batch and looks up its keys. missing[t] = the number of keys of table t without a row. The
    // memory of the batch must stay valid until the next batch is gathered, or until learn_deferred().
    void find(std::span<const TableKeys> tables, std::span<const FieldKeys> fields, size_t* missing);

    // resident[i] = 1 if key i of table t in the pending batch has a row, otherwise 0.
    void resident(size_t t, uint8_t* resident) const;

    // Creates rows for keys of table t in the pending batch; `places` are distinct positions of keys without a row.
    void admit(size_t t, std::span<const int64_t> places, uint32_t at_s);

    // Creates rows for all keys without one in these distinct tables; returns their positions per table.
    std::vector<std::vector<int64_t>> admit_missing(std::span<const size_t> tables, uint32_t at_s);

    // Activates the pending batch, if there is one, and writes the pooled rows of its n samples to
    // out[i * columns() ..]; a key without a row counts as zeros. Rows are rounded as they are read. Dense
    // columns are not written.
    void gather(float* out);

    // Updates the rows of the active batch by the gradient [n][columns()] of the last gathered matrix.
    void learn(const float* gradient, uint32_t at_s);

    // Sets the active batch aside, the pending one if it was not gathered. It takes the place of one set aside before.
    void defer();

    // Updates the rows of the batch set aside by the gradient [n][columns()] of its matrix. Where rows are rounded or
    // compared (max pooling), they count as they are now: what was gathered is not kept.
    void learn_deferred(const float* gradient, uint32_t at_s);

private:
    struct BatchRows {
        TableKeys keys;
        std::vector<uint32_t> rows;         // [u]
        std::vector<const float*> weights;  // [u], read in place
        std::vector<RoundedRow> rounded;    // [u], instead of `weights` if any rows are rounded
    };

    struct FieldState {
        FieldPooling pooling;
        size_t start;  // first column
        FieldKeys pending, active, deferred;
    };

    struct TableState {
        Table* table;
        RowRounding rounding;
        std::vector<FieldState*> fields;  // that read it, in order
        BatchRows pending, active, deferred;
        std::vector<float> zeros;      // weights of a key without a row
        std::vector<float> gradients;  // [u][dim]
        std::vector<float> squares;    // [u], see add_squares()

        bool rounds() const { return rounding.rounding != Rounding::none; }
        RowGrid grid(uint32_t row) const;
        void locate_rows(BatchRows& batch) const;
        void learn(const BatchRows& batch, FieldKeys FieldState::*keys, const float* gradient, size_t columns,
                   uint32_t at_s);
    };

    void check_batch(std::span<const TableKeys> tables, std::span<const FieldKeys> fields) const;
    void activate_pending();

    size_t columns_;
    bool has_pending_ = false;
    std::vector<FieldState> fields_;
    std::vector<TableState> tables_;
    std::vector<size_t> table_of_field_;
    Workers workers_;
};

}  // namespace springtide
