// RowHistory: what the rows of a table that changed since some moment were at that moment.
//
// The table tells it of every first change; whoever reads the table as of the moment asks here first. Not thread-safe.
// Cost: one probe a call; memory is that of the rows kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "key_index.h"

namespace freshet {

class RowHistory {
public:
    // What is kept of a key.
    enum class Kept { kNothing, kAbsent, kRow };

    explicit RowHistory(size_t row_bytes) : cell_bytes_(kHeadBytes + row_bytes) {}

    // Forgets everything and gives the memory back.
    void clear() { *this = RowHistory(cell_bytes_ - kHeadBytes); }

    // Keeps the packed row that a key had; the first that is told of a key holds.
    void keep(uint64_t key, const std::byte* packed) { add(key, packed); }

    // Keeps that a key had no row; the first that is told of a key holds.
    void keep_absent(uint64_t key) { add(key, nullptr); }

    // What is kept of a key; its packed row in `*packed`, good until the next keep().
    Kept find(uint64_t key, const std::byte** packed) const;

    // visit(key) for every key of which a row is kept, in no meaningful order.
    template <class Visit>
    void for_each_row(Visit visit) const {
        index_.for_each(KeyOf{this}, [&](uint64_t key, uint32_t cell) {
            if (had_row(cell)) visit(key);
        });
    }

    size_t memory_bytes() const { return index_.memory_bytes() + cells_.capacity(); }

private:
    // A cell is the key, whether it had a row, and the packed row.
    static constexpr size_t kHeadBytes = 2 * sizeof(uint64_t);

    struct KeyOf {
        const RowHistory* history;
        uint64_t operator()(uint32_t cell) const {
            uint64_t key;
            std::memcpy(&key, history->cell(cell), sizeof(key));
            return key;
        }
        void prefetch(uint32_t cell) const { __builtin_prefetch(history->cell(cell)); }
    };

    const std::byte* cell(uint32_t number) const { return cells_.data() + number * cell_bytes_; }
    bool had_row(uint32_t number) const { return cell(number)[sizeof(uint64_t)] != std::byte{0}; }
    void add(uint64_t key, const std::byte* packed);

    size_t cell_bytes_;
    KeyIndex index_;
    std::vector<std::byte> cells_;
};

}  // namespace freshet
