// Rows at the precision they are to be sent at, or not at all where that brings serving no closer to them.
//
// A pure function over the caller's memory, safe from any thread. Which precision a row warrants is the caller's affair;
// payloads are those of quantizer.h, lengths are square roots of dot(), so the same rows give the same bytes on any
// machine. Linear in n * dim; works in 128 rows of scratch, throws std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

// n rows, and what serving holds of each.
struct RowsToSend {
    const float* rows;  // row i at rows + i * stride
    size_t stride;
    const float* served;  // n * dim, anything where nothing is served
    const uint8_t* served_bits;  // a known precision, 0 where nothing is served
    const uint8_t* warranted;  // a known precision
    size_t n, dim;
};

// chosen[i] is the precision row i is sent at, 0 for not at all; payload gets the bytes of those sent, one after the other.
//
// A row that nothing is served of is sent as it warrants, unless all of it is zeros. Any other is sent as it warrants if
// that is closer to it than what is served, `coarser_gain` times closer where it is coarser than that; otherwise at the
// served precision, if finer and closer. Wants dim in 1..65536. Returns n, or the first row with a weight that is not
// finite: then the outputs mean nothing.
[[nodiscard]] size_t encode_sent(const RowsToSend& input, float coarser_gain, uint8_t* chosen,
                                 std::vector<uint8_t>& payload);

}  // namespace springtide
