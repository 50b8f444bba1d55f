#include "row_history.h"

#include <stdexcept>

namespace freshet {

void RowHistory::add(uint64_t key, const std::byte* packed) {
    if (index_.find(key, KeyOf{this}) != kNoRow) return;
    const size_t number = cells_.size() / cell_bytes_;
    if (number >= kNoRow) throw std::length_error("changes: got 2^32 changed rows during one set, wanted fewer");
    cells_.resize(cells_.size() + cell_bytes_);
    std::byte* cell = cells_.data() + number * cell_bytes_;
    std::memcpy(cell, &key, sizeof(key));
    if (packed != nullptr) {
        cell[sizeof(key)] = std::byte{1};
        std::memcpy(cell + kHeadBytes, packed, cell_bytes_ - kHeadBytes);
    }
    index_.insert(key, static_cast<uint32_t>(number), KeyOf{this});
}

RowHistory::Kept RowHistory::find(uint64_t key, const std::byte** packed) const {
    const uint32_t number = index_.find(key, KeyOf{this});
    if (number == kNoRow) return Kept::kNothing;
    if (!had_row(number)) return Kept::kAbsent;
    *packed = cell(number) + kHeadBytes;
    return Kept::kRow;
}

}  // namespace freshet
