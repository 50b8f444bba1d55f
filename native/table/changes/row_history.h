// RowHistory: the earlier content of the table rows that changed since a point in time.
//
// The table stores a row here before its first change; a read as of that point checks the history before the table. Not
// thread-safe. Cost: one probe per call, which reads a stored row only if it is the key's; memory of the stored rows and
// 12 to 24 bytes for each.
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
        if (!slots_.empty()) __builtin_prefetch(&slots_[tag_of(key) & (slots_.size() - 1)]);
    }

    // Prefetches the row of a key, where find() then reads it; after prefetch().
    [[gnu::always_inline]] void prefetch_row(uint64_t key) const {
        if (slots_.empty()) return;
        const size_t mask = slots_.size() - 1;
        const uint32_t tag = tag_of(key);
        size_t at = tag & mask;
        while (slots_[at].number != 0 && slots_[at].tag != tag) at = (at + 1) & mask;
        if (slots_[at].number == 0) return;
        const std::byte* cell = cells_.data() + (slots_[at].number - 1) * cell_bytes_;
        for (size_t byte = 0; byte < cell_bytes_; byte += 64) __builtin_prefetch(cell + byte);
        __builtin_prefetch(cell + cell_bytes_ - 1);
    }

    size_t size() const { return cells_.size() / cell_bytes_; }
    uint64_t key(size_t i) const;  // of the i-th stored row

    size_t memory_bytes() const { return cells_.capacity() + slots_.capacity() * sizeof(Slot); }

private:
    struct Slot {
        uint32_t tag;     // of the key; the search for it begins here, modulo the number of slots
        uint32_t number;  // 1 + that of its cell, 0 if the slot is free
    };

    static uint32_t tag_of(uint64_t key) { return static_cast<uint32_t>(xxh64_word(key, 0)); }
    size_t slot_of(uint64_t key) const;
    void grow();

    size_t cell_bytes_;
    std::vector<std::byte> cells_;  // key and packed row, one after the other
    std::vector<Slot> slots_;       // the size is a power of two, at most 2/3 used
};

}  // namespace springtide
