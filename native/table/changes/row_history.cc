#include "table/changes/row_history.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace springtide {

uint64_t RowHistory::key(size_t i) const {
    uint64_t key;
    std::memcpy(&key, cells_.data() + i * cell_bytes_, sizeof(key));
    return key;
}

// The slot of the key's cell, or the free slot for it.
size_t RowHistory::slot_of(uint64_t wanted) const {
    const size_t mask = slots_.size() - 1;
    const uint32_t tag = tag_of(wanted);
    size_t at = tag & mask;
    while (slots_[at].number != 0 && (slots_[at].tag != tag || key(slots_[at].number - 1) != wanted))
        at = (at + 1) & mask;
    return at;
}

void RowHistory::grow() {
    const std::vector<Slot> before = std::exchange(slots_, std::vector<Slot>(std::max<size_t>(64, slots_.size() * 2)));
    const size_t mask = slots_.size() - 1;
    for (const Slot& slot : before) {
        if (slot.number == 0) continue;
        size_t at = slot.tag & mask;
        while (slots_[at].number != 0) at = (at + 1) & mask;
        slots_[at] = slot;
    }
}

void RowHistory::store(uint64_t key, const std::byte* packed) {
    if (size() >= UINT32_MAX - 1) throw std::length_error("changes: got 2^32 changed rows in one set, wanted fewer");
    if ((size() + 1) * 3 > slots_.size() * 2) grow();
    Slot& slot = slots_[slot_of(key)];
    if (slot.number != 0) return;
    slot = {tag_of(key), static_cast<uint32_t>(size() + 1)};
    const auto* bytes = reinterpret_cast<const std::byte*>(&key);
    cells_.insert(cells_.end(), bytes, bytes + sizeof(key));
    cells_.insert(cells_.end(), packed, packed + cell_bytes_ - sizeof(key));
}

const std::byte* RowHistory::find(uint64_t key) const {
    if (slots_.empty()) return nullptr;
    const uint32_t cell = slots_[slot_of(key)].number;
    return cell == 0 ? nullptr : cells_.data() + (cell - 1) * cell_bytes_ + sizeof(key);
}

}  // namespace springtide
