// Withheld rows: rows that are not sent to serving yet, and the worth of sending each.
// Worth is as of the last occurrence of the row and decays from then on, like the curvature that it was computed from.
//
// Pure functions over the caller's memory, thread-safe. Keys must be strictly ascending; otherwise results are
// unspecified, but memory accesses stay in bounds. Worth and worth per byte are not negative; NaN and what is not above
// 0 count as 0. Sums are in double in an order that depends on the rows alone, so the same rows give the same selection
// on any machine. Python scores the rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

// n rows in four columns, keys ascending.
struct WithheldRows {
    const uint64_t* keys;
    const float* worth;
    const float* worth_per_byte;  // of the bytes that sending the row takes
    const uint32_t* seen_s;       // log time of the last occurrence, seconds since 1970
    size_t n;
};

struct WithheldColumns {
    uint64_t* keys;
    float* worth;
    float* worth_per_byte;
    uint32_t* seen_s;
};

// worth and worth_per_byte of all rows as of at_s, halved for every half_life_s > 0 since the last occurrence, to the
// columns of these names in `out`. One pass.
void decay_worth(const WithheldRows& rows, uint32_t at_s, double half_life_s, WithheldColumns out);

// Merges newly scored rows into the withheld ones: a scored row replaces the withheld row of its key, and is dropped
// unless withheld[i]. Output keys ascend. `out` has room for rows.n + scored.n rows; returns the number written. One
// pass.
size_t merge_scored(const WithheldRows& rows, const WithheldRows& scored, const bool* withheld, WithheldColumns out);

// Splits the rows: keys of rows with chosen[i] are written to `chosen_keys`, which has room for them, the other rows to
// `rest`, which has room for all. Returns the number of rows in `rest`. One pass.
size_t split_chosen(const WithheldRows& rows, const bool* chosen, uint64_t* chosen_keys, WithheldColumns rest);

}  // namespace springtide
