// Encodes rows to be sent to serving; omits a row if its new payload would be no closer to it than the served one.
//
// A pure function over the caller's memory, thread-safe. The caller chooses the warranted precision of each row.
// Payloads are those of quantizer.h and lengths are square roots of dot(), so the same rows give the same bytes on any
// machine. Linear in n * dim, with scratch for 128 rows. Throws std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

// n rows and the served value of each.
struct RowsToSend {
    const float* rows;  // row i at rows + i * stride
    size_t stride;
    const float* served;  // n * dim, ignored for a row that is not served
    const uint8_t* served_bits;  // precision 4, 8, 16 or 32; 0 for a row that is not served
    const int8_t* served_exponents;  // ignored for a row that is not served or of 32 bits
    const uint8_t* warranted;  // precision 4, 8, 16 or 32
    size_t n, dim;
};

// chosen[i] is the precision row i is sent at, 0 if it is not sent. `payload` is set to the concatenated payloads of
// the rows sent.
//
// A row that is not served is sent at the warranted precision unless it is all zeros. A served row is sent at the
// warranted precision if this is closer to the row than the served value, by a factor of `coarser_gain` if the
// warranted precision is coarser than the served one; otherwise it is sent at the served precision, if that is finer
// and closer. A row sent at its served precision keeps the served exponent while kept_exponent() allows it. Requires dim
// in 1..65536. Returns n, or the index of the first row with a weight that is not finite: then
// the outputs are unspecified.
[[nodiscard]] size_t encode_sent(const RowsToSend& input, float coarser_gain, uint8_t* chosen,
                                 std::vector<uint8_t>& payload);

}  // namespace springtide
