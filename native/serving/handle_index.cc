#include "serving/handle_index.h"

#include <algorithm>

namespace springtide {

void HandleIndex::set(uint32_t handle, uint32_t place) {
    const size_t piece = handle / kPieceHandles;
    if (piece >= pieces_.size()) pieces_.resize(piece + 1);
    if (!pieces_[piece]) {
        pieces_[piece] = std::make_unique_for_overwrite<uint32_t[]>(kPieceLines);
        std::fill_n(pieces_[piece].get(), kPieceLines, kNoLine);
    }
    uint32_t& line = pieces_[piece][line_of(handle)];
    if (line == kNoLine) {
        line = lines_.acquire();
        std::fill_n(places_at(line), kLineHandles, kNoPlace);
    }
    places_at(line)[handle % kLineHandles] = place;
}

void HandleIndex::clear(uint32_t handle) {
    if ((*this)[handle] == kNoPlace) return;
    uint32_t& line = pieces_[handle / kPieceHandles][line_of(handle)];
    uint32_t* const places = places_at(line);
    places[handle % kLineHandles] = kNoPlace;
    if (std::any_of(places, places + kLineHandles, [](uint32_t place) { return place != kNoPlace; })) return;
    lines_.release(line);
    line = kNoLine;
}

size_t HandleIndex::memory_bytes() const {
    size_t bytes = lines_.memory_bytes() + pieces_.capacity() * sizeof(pieces_[0]);
    for (const auto& piece : pieces_) bytes += piece ? kPieceLines * sizeof(uint32_t) : 0;
    return bytes;
}

}  // namespace springtide
