// RowHistory: what the rows of a table that changed since some moment were at that moment.
//
// The table tells it of every first change; whoever reads the table as of the moment asks here first. Not thread-safe.
// Cost: one probe a call; memory is that of the rows kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "key_index.h"

namespace freshet {

class RowHistory {
public:
    // What is kept of a key.
    enum class Kept { kNothing, kAbsent, kRow };

    // Forgets everything and gives the memory back.
    void clear() { *this = RowHistory(); }

    // Keeps the packed row that a key had; the first that is told of a key holds.
    void keep(uint64_t key, const std::byte* packed, size_t row_bytes);

    // Keeps that a key had no row; the first that is told of a key holds.
    void keep_absent(uint64_t key);

    // What is kept of a key; its packed row in `*packed`, good until the next keep().
    Kept find(uint64_t key, const std::byte** packed) const;

    // visit(key) for every key of which a row is kept, in no meaningful order.
    template <class Visit>
    void for_each_row(Visit visit) const {
        index_.for_each([&](uint64_t key, uint32_t place) {
            if (place != kAbsentPlace) visit(key);
        });
    }

    size_t memory_bytes() const { return index_.memory_bytes() + packed_.capacity(); }

private:
    static constexpr uint32_t kAbsentPlace = kNoRow - 1;

    KeyIndex index_;  // key → number of the row in packed_, or kAbsentPlace
    std::vector<std::byte> packed_;
    size_t row_bytes_ = 1;
};

}  // namespace freshet
