// KeyIndex: key → row number, open addressing with linear probing over one array of 12-byte slots.
//
// Not thread-safe; questions may run in parallel with each other. Any uint64 is a key, 0 included. A missing key gives
// kNoRow. Cost: about 1.5 probes for a resident key; slots double when three quarters are taken, so inserting is
// amortised constant time (the one insert that doubles takes time and memory for both arrays). Erasing shifts the
// followers back: no tombstones, nothing to clean up. The order of slots depends on history: never let it show.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace freshet {

inline constexpr uint32_t kNoRow = 0xffffffff;

class KeyIndex {
public:
    KeyIndex();

    uint32_t find(uint64_t key) const;

    // rows[i] = find(keys[i]), the memory accesses of neighbours overlapped.
    void find_all(std::span<const uint64_t> keys, uint32_t* rows) const;

    // Adds a key that is not there yet.
    void insert(uint64_t key, uint32_t row);

    // Takes a key out; returns its row, kNoRow where there was none.
    uint32_t erase(uint64_t key);

    size_t size() const { return size_; }
    size_t memory_bytes() const { return slots_.capacity() * sizeof(Slot); }

    // Every key, ascending.
    std::vector<uint64_t> sorted_keys() const;

    // visit(key, row) for every key, in no meaningful order.
    template <class Visit>
    void for_each(Visit visit) const {
        for (const Slot& slot : slots_)
            if (slot.row != kNoRow) visit(slot.key(), slot.row);
    }

private:
    struct Slot {
        uint32_t key_low, key_high;  // halves, so that a slot is 12 bytes and still aligned
        uint32_t row;                // kNoRow where the slot is free

        uint64_t key() const { return static_cast<uint64_t>(key_high) << 32 | key_low; }
    };

    size_t home(uint64_t key) const;
    size_t slot_of(uint64_t key) const;
    void put(uint64_t key, uint32_t row);
    void grow();

    std::vector<Slot> slots_;
    size_t mask_;
    size_t size_ = 0;
};

}  // namespace freshet
