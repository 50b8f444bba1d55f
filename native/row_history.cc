#include "row_history.h"

#include <stdexcept>

namespace freshet {

void RowHistory::keep(uint64_t key, const std::byte* packed, size_t row_bytes) {
    if (index_.find(key) != kNoRow) return;
    row_bytes_ = row_bytes;
    const size_t place = packed_.size() / row_bytes;
    if (place >= kAbsentPlace) throw std::length_error("changes: got 2^32 changed rows during one set, wanted fewer");
    packed_.insert(packed_.end(), packed, packed + row_bytes);
    index_.insert(key, static_cast<uint32_t>(place));
}

void RowHistory::keep_absent(uint64_t key) {
    if (index_.find(key) == kNoRow) index_.insert(key, kAbsentPlace);
}

RowHistory::Kept RowHistory::find(uint64_t key, const std::byte** packed) const {
    const uint32_t place = index_.find(key);
    if (place == kNoRow) return Kept::kNothing;
    if (place == kAbsentPlace) return Kept::kAbsent;
    *packed = packed_.data() + place * row_bytes_;
    return Kept::kRow;
}

}  // namespace freshet
