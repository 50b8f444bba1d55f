// ChangeSet: the rows a table touched and the keys it removed between two calls of begin_changes(), as of the second.
//
// The table fills it between batches. A complete set holds values only, no pointers into the table, so another thread
// can sort and hash it. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

struct ChangeSet {
    size_t row_bytes = 0;
    std::vector<uint64_t> keys;     // touched and resident, distinct, in no particular order
    std::vector<std::byte> packed;  // their rows, row_bytes each, in the order of `keys`
    std::vector<uint64_t> removed;  // may contain duplicates, and keys that were created again: those are in `keys` too
    uint64_t rest_sum = 0;          // digest sum over all rows that are not in `keys`

    void reserve(size_t rows) {
        keys.reserve(rows);
        packed.reserve(rows * row_bytes);
    }

    void add(uint64_t key, const std::byte* row) {
        keys.push_back(key);
        packed.insert(packed.end(), row, row + row_bytes);
    }

    size_t memory_bytes() const {
        return (keys.size() + removed.size()) * sizeof(uint64_t) + packed.size();
    }
};

// A finished set, the content of a commit.
struct Changes {
    std::vector<uint64_t> touched;  // resident, ascending
    std::vector<uint8_t> packed;    // their rows in that order
    std::vector<uint64_t> removed;  // not resident, ascending
    uint64_t touched_sum = 0;       // sum of XXH64(packed row, seed = key) over `touched`, for Table::settle()
    uint64_t digest = 0;            // digest of the table as of begin_changes()
};

// Sorts and hashes. Pure, thread-safe; linear in the rows.
Changes finish(const ChangeSet& set);

}  // namespace springtide
