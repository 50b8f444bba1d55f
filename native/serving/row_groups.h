// The rows of a delta as it spells them: grouped by precision, in a group the known ones before the new, each by handle.
//
// Pure functions over the caller's memory, safe from any thread. Linear in rows and bytes; std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

// Rows that serving knows, then new ones; payloads one after the other in that order.
struct DeltaRows {
    const uint32_t* handles;  // of the known rows
    size_t known;
    const uint64_t* new_keys;  // of the new rows
    const uint32_t* new_handles;
    size_t fresh;
    const uint8_t* bits;  // of both, known precisions
    const uint8_t* payload;
    size_t dim;
};

// Those of one precision. Handles as in gaps.h, keys little-endian.
struct RowGroup {
    unsigned bits;
    std::vector<uint8_t> known, new_handles, new_keys, payload;
};

// One group for each precision there is, coarsest first. At most 2^32 - 1 rows.
std::vector<RowGroup> group_rows(const DeltaRows& rows);

// Payloads in another order: first that of row order[0]. Payload i has bits[i]; order has n places below n.
std::vector<uint8_t> reorder_payload(const uint8_t* payload, const uint8_t* bits, const int64_t* order, size_t n,
                                     size_t dim);

}  // namespace springtide
