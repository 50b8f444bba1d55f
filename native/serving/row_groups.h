// The rows of a delta as encoded: grouped by precision; in a group known rows before new ones, each ordered by handle.
//
// Pure functions over the caller's memory, thread-safe. Linear in rows and bytes. Throws std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

// Known rows, which serving has already, then new rows; payloads are concatenated in that order.
struct DeltaRows {
    const uint32_t* handles;  // of the known rows
    size_t known_count;
    const uint64_t* new_keys;
    const uint32_t* new_handles;
    size_t new_count;
    const uint8_t* bits;  // precision of each row: 4, 8, 16 or 32
    const uint8_t* payload;
    size_t dim;
};

// The rows of one precision. Handles are encoded as in wire/gaps.h, keys are little-endian.
struct RowGroup {
    unsigned bits;
    std::vector<uint8_t> known, new_handles, new_keys, payload;
};

// One group per precision in use, coarsest first. At most 2^32 - 1 rows.
std::vector<RowGroup> group_rows(const DeltaRows& rows);

// Payloads in the order of rows order[0], order[1], ... Payload i has precision bits[i]; `order` has n values below n.
std::vector<uint8_t> reorder_payload(const uint8_t* payload, const uint8_t* bits, const int64_t* order, size_t n,
                                     size_t dim);

}  // namespace springtide
