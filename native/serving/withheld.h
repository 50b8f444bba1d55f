// Withheld rows: rows that are not sent to serving yet, the worth of sending each, and the selection of rows to send.
//
// Pure functions over the caller's memory, thread-safe. Keys must be strictly ascending; otherwise results are
// unspecified, but memory accesses stay in bounds. Worth and worth per byte are not negative; NaN and what is not above
// 0 count as 0. Sums are in double in an order that depends on the rows alone, so the same rows give the same selection
// on any machine. Python scores the rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

// n rows in three columns, keys ascending.
struct WithheldRows {
    const uint64_t* keys;
    const float* worth;
    const float* worth_per_byte;  // of the bytes that sending the row takes
    size_t n;
};

struct WithheldColumns {
    uint64_t* keys;
    float* worth;
    float* worth_per_byte;
};

// Merges newly scored rows into the withheld ones: a scored row replaces the withheld row of its key, and is dropped
// unless withheld[i]. Output keys ascend. `out` has room for rows.n + scored.n rows; returns the number written. One
// pass.
size_t merge_scored(const WithheldRows& rows, const WithheldRows& scored, const bool* withheld, WithheldColumns out);

// Splits the rows: keys of rows with chosen[i] are written to `chosen_keys`, which has room for them, the other rows to
// `rest`, which has room for all. Returns the number of rows in `rest`. One pass.
size_t split_chosen(const WithheldRows& rows, const bool* chosen, uint64_t* chosen_keys, WithheldColumns rest);

// Selects the rows with `share` of the total worth in the fewest bytes: in order of descending worth per byte, earlier
// rows first if equal, up to and including the row that completes the share. chosen[i] = whether row i is selected.
// Rows without worth are never selected; a share of 1 selects all others. Three passes and 768 KiB of scratch
// (std::bad_alloc).
void select_worthiest(const float* worth, const float* worth_per_byte, size_t n, double share, bool* chosen);

}  // namespace springtide
