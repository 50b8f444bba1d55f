// What is withheld from serving: rows by key, what sending each is worth, and which of them to send.
//
// Pure functions over the caller's memory, safe from any thread. Keys ascend without equals; where they do not, results
// mean nothing, but memory is safe. Worth and value are not negative; what is not above 0, NaN too, counts as 0.
// Sums are in double in an order that depends on the rows alone, so the same rows give the same choice on any machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

// n rows in three columns, keys ascending.
struct WithheldRows {
    const uint64_t* keys;
    const float* worth;
    const float* value;  // worth per byte that sending takes
    size_t n;
};

struct WithheldColumns {
    uint64_t* keys;
    float* worth;
    float* value;
};

// `held` with everything judged anew replaced: of the judged rows those with withheld[i], and those of `held` that are
// not judged, keys ascending. `out` has room for held.n + judged.n rows; returns how many there are. One pass.
size_t judge_anew(const WithheldRows& held, const WithheldRows& judged, const bool* withheld, WithheldColumns out);

// Parts the rows: those with chosen[i] into `taken`, which has room for them, the others into `left`, which has room for
// all of `held`. Returns how many are left. One pass.
size_t take_out(const WithheldRows& held, const bool* chosen, uint64_t* taken, WithheldColumns left);

// chosen[i] tells whether row i is among those that carry `share` of all worth in the fewest bytes: most value first, of
// equals the earlier row, up to and with the one that completes the share. Rows without worth are never chosen; a share
// of 1 is all the others. Three passes and 768 KiB of scratch (std::bad_alloc).
void select_worthiest(const float* worth, const float* value, size_t n, double share, bool* chosen);

}  // namespace springtide
