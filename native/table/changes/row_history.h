// RowHistory: the earlier content of the table rows that changed since a point in time.
//
// The table stores a row here before its first change; a read as of that point checks the history before the table. Not
// thread-safe. Cost: one probe per call; memory of the stored rows and 6 to 12 bytes for each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "keys/xxh64.h"

namespace springtide {

class RowHistory {
public:
    explicit RowHistory(size_t row_bytes) : cell_bytes_(sizeof(uint64_t) + row_bytes) {}

    // Removes all rows and frees the memory.
    void clear() { *this = RowHistory(cell_bytes_ - sizeof(uint64_t)); }

    // Stores the packed row of a key; does nothing if a row of this key is stored already.
    void store(uint64_t key, const std::byte* packed);

    // The stored packed row of a key, valid until the next store(); null if there is none.
    const std::byte* find(uint64_t key) const;

    // Prefetches where the search for a key begins.
    [[gnu::always_inline]] void prefetch(uint64_t key) const {
        if (!slots_.empty()) __builtin_prefetch(&slots_[home_of(key)]);
    }

    size_t size() const { return cells_.size() / cell_bytes_; }
    uint64_t key(size_t i) const;  // of the i-th stored row

    size_t memory_bytes() const { return cells_.capacity() + slots_.capacity() * sizeof(uint32_t); }

private:
    size_t home_of(uint64_t key) const { return xxh64_word(key, 0) & (slots_.size() - 1); }
    size_t slot_of(uint64_t key) const;
    void grow();

    size_t cell_bytes_;
    std::vector<std::byte> cells_;  // key and packed row, one after the other
    std::vector<uint32_t> slots_;   // 1 + number of a cell, 0 if free; the size is a power of two, at most 2/3 used
};

}  // namespace springtide
