// ChangeSet: the rows a table touched and the keys it removed between two calls of begin_changes(), as of the second.
//
// The table fills it between batches; once whole it belongs to whoever took it and needs the table no more, so that
// sorting and hashing can happen in another thread. Values, not thread-safe, no pointers into the table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

struct ChangeSet {
    size_t row_bytes = 0;
    std::vector<uint64_t> keys;     // touched and resident, each once, in no meaningful order
    std::vector<std::byte> packed;  // their rows, row_bytes each, in the order of `keys`
    std::vector<uint64_t> removed;  // may repeat, and may hold keys that came back: those are in `keys` too
    uint64_t rest_sum = 0;          // the digest's sum over all rows that are not in `keys`

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

// A finished set: what a commit writes.
struct Changes {
    std::vector<uint64_t> touched;  // resident, ascending
    std::vector<uint8_t> packed;    // their rows in that order
    std::vector<uint64_t> removed;  // not resident, ascending
    uint64_t touched_sum = 0;       // sum of XXH64(packed row, seed = key) over `touched`; Table::settle() wants it
    uint64_t digest = 0;            // the table's digest as of begin_changes()
};

// Sorts and hashes. Pure, safe from any thread; linear in the rows.
Changes finish(const ChangeSet& set);

}  // namespace springtide
