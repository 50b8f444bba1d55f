// ItemPlaces: a place for each item, by id: the number of its row in arrays that the caller keeps. Places of removed
// items are reused, the last one freed first, so they follow from the history alone.
//
// Threads: not thread-safe; concurrent const calls are safe. Memory: about 20 bytes per place.
// Failure: std::bad_alloc, or std::length_error at 2^32 - 1 places; earlier items of the call are applied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "table/index/key_index.h"

namespace springtide {

class ItemPlaces {
public:
    ItemPlaces() = default;
    ItemPlaces(const ItemPlaces&) = delete;
    ItemPlaces& operator=(const ItemPlaces&) = delete;

    // The places of items, [n], new ones for unknown ids.
    std::vector<uint32_t> put(std::span<const uint64_t> ids);

    // Frees the place of an item and returns it; kNoRow for an unknown id.
    uint32_t remove(uint64_t id);

    // places[i]: of ids[i]; kNoRow for an unknown id.
    void find(std::span<const uint64_t> ids, uint32_t* places) const;

    uint64_t id(uint32_t place) const { return ids_[place]; }
    size_t size() const { return index_.size(); }
    size_t memory_bytes() const;

private:
    uint32_t place_for(uint64_t id);

    std::vector<uint64_t> ids_;  // by place
    std::vector<uint32_t> free_;
    KeyIndex index_;
};

}  // namespace springtide
