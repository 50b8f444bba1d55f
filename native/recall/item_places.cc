#include "recall/item_places.h"

#include <stdexcept>

namespace springtide {
namespace {

// For KeyIndex.
struct IdOf {
    const std::vector<uint64_t>& ids;

    uint64_t operator()(uint32_t place) const { return ids[place]; }
    [[gnu::always_inline]] void prefetch(uint32_t place) const { __builtin_prefetch(&ids[place]); }
};

}  // namespace

std::vector<uint32_t> ItemPlaces::put(std::span<const uint64_t> ids) {
    std::vector<uint32_t> places(ids.size());
    find(ids, places.data());
    for (size_t i = 0; i < ids.size(); ++i)
        if (places[i] == kNoRow) places[i] = place_for(ids[i]);
    return places;
}

// An id may be repeated among those of a call.
uint32_t ItemPlaces::place_for(uint64_t id) {
    const uint32_t known = index_.find(id, IdOf{ids_});
    if (known != kNoRow) return known;
    if (free_.empty()) {
        if (ids_.size() >= kNoRow) throw std::length_error("an index holds at most 2^32 - 1 items");
        free_.reserve(ids_.size() + 1);  // so that remove() cannot fail
        ids_.push_back(id);
        free_.push_back(static_cast<uint32_t>(ids_.size() - 1));
    }
    const uint32_t place = free_.back();
    ids_[place] = id;
    index_.insert(id, place, IdOf{ids_});
    free_.pop_back();
    return place;
}

uint32_t ItemPlaces::remove(uint64_t id) {
    const uint32_t place = index_.find(id, IdOf{ids_});
    if (place == kNoRow) return kNoRow;
    index_.erase(id, place);
    free_.push_back(place);
    return place;
}

void ItemPlaces::find(std::span<const uint64_t> ids, uint32_t* places) const {
    index_.find_each(ids, IdOf{ids_}, [&](size_t i, uint32_t place) { places[i] = place; });
}

size_t ItemPlaces::memory_bytes() const {
    return index_.memory_bytes() + ids_.capacity() * sizeof(uint64_t) + free_.capacity() * sizeof(uint32_t);
}

}  // namespace springtide
