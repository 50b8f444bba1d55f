// Rows to be sent to serving: what sending each is worth, what it costs, and its bytes.
//
// With loss = 1/2 * h * |e|^2, e the error of a row in serving and h its curvature (table/statistics.h), sending a row is
// worth 1/2 * h * (|row - served|^2 - |row - sent|^2), where `sent` are integers times the power of two nearest to
// sqrt(unit / h): steps proportional to 1 / sqrt(h) take the fewest bits for a loss (reverse water-filling; Cover and
// Thomas, Elements of Information Theory, 10.3.3).
//
// Pure functions over the caller's memory, thread-safe. Payloads are those of quantizer/integers.h and squared lengths
// are dot(), so the same rows give the same bytes on any machine. Linear in n * dim, with scratch for one row. Require
// dim in 1..65536. Return n, or the index of the first row with a weight that is not finite: then the outputs are
// unspecified. Throw std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

// n rows and the served value of each.
struct RowsToSend {
    const float* rows;  // row i at rows + i * stride
    size_t stride;
    const float* served;             // n * dim, zeros for a row that is not served
    const uint8_t* served_bits;      // precision 4, 8, 16 or 32; 0 for a row that is not served
    const int8_t* served_exponents;  // ignored for a row that is not served or of 32 bits
    const float* curvature;          // not negative
    double unit;                     // not negative; 0 for the finest steps
    size_t n, dim;
};

// Of each row, losses as 1/2 * h * |e|^2. A row that does not improve what serving holds is worth nothing.
struct ScoredRows {
    bool* improves;     // whether sending it brings serving closer to the row
    float* worth;       // loss that sending it takes off
    float* cost_bytes;  // estimate of its coded bytes
    float* missing;     // loss if serving did not hold it
    float* error;       // loss by what serving holds
};

[[nodiscard]] size_t score_rows(const RowsToSend& input, const ScoredRows& out);

// bits[i] is the precision of row i, 0 if sending it does not improve what serving holds; a row that is not served is
// encoded also then. `payload` is set to the concatenated payloads of the others.
[[nodiscard]] size_t encode_sent(const RowsToSend& input, uint8_t* bits, std::vector<uint8_t>& payload);

}  // namespace springtide
