#include "recall/scan/item_segment.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace springtide {
namespace {

constexpr size_t kGroupBytes = 4 * kBlockItems;
constexpr uint32_t kShift = 0x80808080;  // 128 added to each of four codes

// Calls visit(a) for every attribute a of `attributes`.
template <class Visit>
void for_each(uint64_t attributes, Visit visit) {
    for (; attributes != 0; attributes &= attributes - 1) visit(static_cast<size_t>(std::countr_zero(attributes)));
}

double length(int32_t squares) { return std::sqrt(static_cast<double>(squares)); }

}  // namespace

ItemSegment::ItemSegment(const SegmentShape& shape, std::byte* memory) : shape_(shape), memory_(memory) {
    std::memset(memory, 0, shape.bytes());
}

void ItemSegment::write(size_t slot, const CodedItem& item, uint64_t attributes) {
    std::byte* at = memory_ + slot / kBlockItems * shape_.block_bytes + 4 * (slot % kBlockItems);
    for (size_t i = 0; i < shape_.width; i += 4, at += kGroupBytes) {
        uint32_t four;
        std::memcpy(&four, item.upper + i, sizeof(four));
        four ^= kShift;
        std::memcpy(at, &four, sizeof(four));
    }
    std::memcpy(at, &item.found.scale, sizeof(float));
    std::memcpy(memory_ + row_at(slot) + sizeof(uint64_t), item.lower, shape_.width);
    upper_length_ = std::max(upper_length_, length(item.found.upper_squares));
    lower_length_ = std::max(lower_length_, length(item.found.lower_squares));
    const size_t block = slot / kBlockItems;
    const auto bit = static_cast<uint16_t>(1u << slot % kBlockItems);
    bits(0)[block] |= bit;
    for (size_t a = 0; a < shape_.attributes; ++a) {
        bits(1 + a)[block] &= static_cast<uint16_t>(~bit);
        if ((attributes >> a & 1) != 0) bits(1 + a)[block] |= bit;
    }
}

float ItemSegment::read(size_t slot, int8_t* upper) const {
    const uint8_t* at = block(slot / kBlockItems) + 4 * (slot % kBlockItems);
    for (size_t i = 0; i < shape_.width; i += 4, at += kGroupBytes) {
        uint32_t four;
        std::memcpy(&four, at, sizeof(four));
        four ^= kShift;
        std::memcpy(upper + i, &four, sizeof(four));
    }
    float scale;
    std::memcpy(&scale, at, sizeof(scale));
    return scale;
}

uint64_t ItemSegment::attributes(size_t slot) const {
    uint64_t found = 0;
    for (size_t a = 0; a < shape_.attributes; ++a)
        found |= static_cast<uint64_t>(bits(1 + a)[slot / kBlockItems] >> slot % kBlockItems & 1) << a;
    return found;
}

void ItemSegment::select(const ItemFilter& filter, uint16_t* allowed) const {
    constexpr size_t n = SegmentShape::kBlocks;
    std::copy_n(bits(0), n, allowed);
    if (filter.any != 0) {
        uint16_t any[n] = {};
        for_each(filter.any, [&](size_t a) { for (size_t b = 0; b < n; ++b) any[b] |= bits(1 + a)[b]; });
        for (size_t b = 0; b < n; ++b) allowed[b] &= any[b];
    }
    for_each(filter.all, [&](size_t a) { for (size_t b = 0; b < n; ++b) allowed[b] &= bits(1 + a)[b]; });
    for_each(filter.none, [&](size_t a) {
        for (size_t b = 0; b < n; ++b) allowed[b] &= static_cast<uint16_t>(~bits(1 + a)[b]);
    });
}

}  // namespace springtide
