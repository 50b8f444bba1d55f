#include "key_index.h"

#include <algorithm>

namespace freshet {
namespace {

constexpr size_t kFirstSlots = 16;
constexpr size_t kAhead = 16;

}  // namespace

KeyIndex::KeyIndex() : slots_(kFirstSlots, Slot{0, 0, kNoRow}), mask_(kFirstSlots - 1) {}

// Keys are usually hashes already, but nobody promised: multiply and fold, so that small integers spread as well.
size_t KeyIndex::home(uint64_t key) const {
    key = (key ^ (key >> 32)) * 0xD6E8FEB86659FD93;
    return (key ^ (key >> 32)) & mask_;
}

// The slot that holds the key, or the free one where it would go. There is always a free one.
size_t KeyIndex::slot_of(uint64_t key) const {
    size_t at = home(key);
    while (slots_[at].row != kNoRow && slots_[at].key() != key) at = (at + 1) & mask_;
    return at;
}

uint32_t KeyIndex::find(uint64_t key) const { return slots_[slot_of(key)].row; }

void KeyIndex::find_all(std::span<const uint64_t> keys, uint32_t* rows) const {
    for (size_t i = 0; i < std::min(kAhead, keys.size()); ++i) __builtin_prefetch(&slots_[home(keys[i])]);
    for (size_t i = 0; i < keys.size(); ++i) {
        if (i + kAhead < keys.size()) __builtin_prefetch(&slots_[home(keys[i + kAhead])]);
        rows[i] = find(keys[i]);
    }
}

void KeyIndex::put(uint64_t key, uint32_t row) {
    slots_[slot_of(key)] = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32), row};
}

void KeyIndex::insert(uint64_t key, uint32_t row) {
    if ((size_ + 1) * 4 > slots_.size() * 3) grow();
    put(key, row);
    ++size_;
}

void KeyIndex::grow() {
    std::vector<Slot> old(slots_.size() * 2, Slot{0, 0, kNoRow});
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    for (const Slot& slot : old)
        if (slot.row != kNoRow) put(slot.key(), slot.row);
}

uint32_t KeyIndex::erase(uint64_t key) {
    size_t hole = slot_of(key);
    const uint32_t row = slots_[hole].row;
    if (row == kNoRow) return kNoRow;
    // A follower moves into the hole unless its home lies behind the hole: then it is as near to home as it can be.
    for (size_t at = (hole + 1) & mask_; slots_[at].row != kNoRow; at = (at + 1) & mask_) {
        const size_t from_home = (at - home(slots_[at].key())) & mask_;
        const size_t from_hole = (at - hole) & mask_;
        if (from_home < from_hole) continue;
        slots_[hole] = slots_[at];
        hole = at;
    }
    slots_[hole].row = kNoRow;
    --size_;
    return row;
}

std::vector<uint64_t> KeyIndex::sorted_keys() const {
    std::vector<uint64_t> keys;
    keys.reserve(size_);
    for_each([&](uint64_t key, uint32_t) { keys.push_back(key); });
    std::sort(keys.begin(), keys.end());
    return keys;
}

}  // namespace freshet
