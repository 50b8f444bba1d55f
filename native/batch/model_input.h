// ModelInput: between the keys of a batch and the dense network's input, for all fields of a model at once.
//
// For every batch: find(), then admit() where keys have earned a row, gather(), and learn() with the gradient that came
// back. The rows found stay those of the batch, so each key is probed once. gather() takes up the batch that find()
// began, and learn() goes back to the batch taken up last: between the two the next one may be found and admitted, which
// reads no weights. Fields are worked on side by side; they share nothing, so results do not depend on the number of
// threads.
//
// Not thread-safe, one call at a time; between find() and learn() nobody may remove rows. The tables are the
// caller's and outlive this. Throws std::invalid_argument, with nothing changed, for what does not fit; what a table
// refuses in learn() may have changed the tables of other fields.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "batch/pooling.h"
#include "table/table.h"
#include "memory/workers.h"

namespace springtide {

// One field's keys in one batch of n samples: m occurrences of u distinct keys. The memory is the caller's.
struct FieldKeys {
    std::span<const uint64_t> keys;     // [u] distinct
    std::span<const int32_t> inverse;   // [m], values in [0, u)
    std::span<const uint32_t> counts;   // [u], at least 1
    std::span<const int64_t> offsets;   // [n + 1], ascending from 0 to m
};

class ModelInput {
public:
    struct Field {
        Table* table;
        bool mean;  // pooled by mean, else by sum
    };

    // `dense_columns` follow the fields' columns in a matrix of samples × columns().
    ModelInput(std::vector<Field> fields, size_t dense_columns, size_t threads);

    size_t columns() const { return columns_; }

    // Begins a batch: looks up every field's keys. missing[f] = how many of field f's keys have no row. Its
    // memory is to stay until the next batch is gathered.
    void find(std::span<const FieldKeys> batch, size_t* missing);

    // Which keys of field f in the batch begun have a row now: resident[i] = 1, else 0.
    void resident(size_t f, uint8_t* resident) const;

    // Gives rows to keys of field f, named by their places in `keys`, all of them without a row; `places` is distinct.
    void admit(size_t f, std::span<const int64_t> places, uint32_t at_s);

    // Gives rows to all keys of these distinct fields that have none; returns for each field their places.
    std::vector<std::vector<int64_t>> admit_missing(std::span<const size_t> fields, uint32_t at_s);

    // Takes up the batch begun, unless that has happened, and writes the pooled rows of its n samples to
    // out[i * columns() ..]; keys without a row count as zeros. The dense columns stay as they are.
    void gather(float* out);

    // Takes the gradient [n][columns()] of what gather() wrote last back to the rows, and updates them.
    void learn(const float* gradient, uint32_t at_s);

private:
    struct Found {
        FieldKeys keys;
        std::vector<uint32_t> rows;  // [u]
    };

    struct Part {
        Table* table;
        bool mean;
        size_t start;                    // first column
        Found begun, taken_up;
        std::vector<const float*> weights;
        std::vector<float> zeros;        // what a key without a row looks up as
        std::vector<float> gradients;    // [u][dim]
    };

    static Pooling pooling_of(const Part& part, const FieldKeys& keys);
    void take_up();

    size_t columns_;
    bool begun_ = false;  // whether a batch waits to be taken up
    std::vector<Part> parts_;
    Workers workers_;
};

}  // namespace springtide
