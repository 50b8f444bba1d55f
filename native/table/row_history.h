// RowHistory: what the rows of a table that changed since some moment were at that moment.
//
// The table tells it of every first change; whoever reads the table as of the moment asks here first. Not thread-safe.
// Cost: one probe a call, for a memory of the rows kept and 6 to 12 bytes for each of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

class RowHistory {
public:
    explicit RowHistory(size_t row_bytes) : cell_bytes_(sizeof(uint64_t) + row_bytes) {}

    // Forgets everything and gives the memory back.
    void clear() { *this = RowHistory(cell_bytes_ - sizeof(uint64_t)); }

    // Keeps the packed row that a key had; the first that is told of a key holds.
    void keep(uint64_t key, const std::byte* packed);

    // The packed row kept of a key, good until the next keep(); null where none is.
    const std::byte* find(uint64_t key) const;

    size_t size() const { return cells_.size() / cell_bytes_; }
    uint64_t key(size_t i) const;  // of the i-th row kept

    size_t memory_bytes() const { return cells_.capacity() + slots_.capacity() * sizeof(uint32_t); }

private:
    size_t slot_of(uint64_t key) const;
    void grow();

    size_t cell_bytes_;
    std::vector<std::byte> cells_;  // each the key and its packed row
    std::vector<uint32_t> slots_;   // 1 + number of a cell, 0 where free; a power of two, at most 2/3 taken
};

}  // namespace springtide
