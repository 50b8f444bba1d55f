#include "recall/scan/segment_list.h"

#include <stdexcept>

namespace springtide {

void SegmentList::add() {
    const size_t number = size();
    // The last slot number of all means no slot (KeyIndex).
    if (number + 1 == kParts * kPart) throw std::length_error("index: got 2^32 items, wanted fewer");
    if (!parts_[number / kPart]) parts_[number / kPart] = std::make_unique<Part>();
    const uint32_t row = memory_.acquire();
    try {
        (*parts_[number / kPart])[number % kPart] = std::make_unique<ItemSegment>(shape_, memory_[row]);
    } catch (const std::bad_alloc&) {
        memory_.release(row);
        throw;
    }
    size_.store(number + 1, std::memory_order_release);
}

size_t SegmentList::memory_bytes() const {
    size_t parts = 0;
    for (const auto& part : parts_) parts += part != nullptr;
    return memory_.memory_bytes() + sizeof(*this) + parts * sizeof(Part) + size() * sizeof(ItemSegment);
}

}  // namespace springtide
