// ItemSegment: 1,024 slots for the coded vectors of an index, laid out for scans.
//
// A vector x is stored as upper and lower codes of one byte each: x is about scale * (256 * upper + lower), with the
// scale chosen so that the largest component has the code 127 * 256. The upper codes of sixteen slots lie together in a
// block (simd/kernels/recall/scan.h), which scans read from the first byte to the last. The lower codes are in a row of the
// slot behind its id; only items that survive a scan have theirs read. Attributes are bitmaps: a bit per slot each.
//
// Threads: mutex() protects the content: shared for the const calls, exclusive for the others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <shared_mutex>

#include "memory/pages.h"
#include "recall/item_filter.h"
#include "simd/kernels/recall/scan.h"
#include "simd/kernels/recall/vector_codes.h"

namespace springtide {

// The codes of one vector: upper and lower are [width].
struct CodedItem {
    const int8_t *upper, *lower;
    CodedVector found;
};

// The layout of a segment for vectors of `dim` components: blocks, then rows, then bitmaps. Memory per slot:
// 2 * width + 12 bytes and a bit, and a bit per attribute.
struct SegmentShape {
    static constexpr size_t kBlocks = 64, kSlots = kBlocks * kBlockItems;

    // Requires 1 <= dim <= 512 and attributes <= 64.
    SegmentShape(size_t dim, size_t attributes)
        : width(Pages::rounded(dim, 16)), attributes(attributes), block_bytes(kBlockItems * (width + sizeof(float))),
          row_bytes(sizeof(uint64_t) + width) {}

    size_t rows_at() const { return kBlocks * block_bytes; }
    size_t bits_at() const { return rows_at() + kSlots * row_bytes; }
    size_t bytes() const { return bits_at() + (1 + attributes) * kBlocks * sizeof(uint16_t); }

    size_t width, attributes, block_bytes, row_bytes;
};

class ItemSegment {
public:
    // `memory`: shape.bytes() bytes, aligned to 64, which the segment clears and uses but does not own.
    ItemSegment(const SegmentShape& shape, std::byte* memory);

    std::shared_mutex& mutex() const { return mutex_; }

    const uint8_t* block(size_t number) const {
        return reinterpret_cast<const uint8_t*>(memory_ + number * shape_.block_bytes);
    }
    const std::byte* rows() const { return row(0); }
    const int8_t* lower(size_t slot) const { return reinterpret_cast<const int8_t*>(row(slot) + sizeof(uint64_t)); }
    uint64_t id(size_t slot) const {
        uint64_t id;
        std::memcpy(&id, row(slot), sizeof(id));
        return id;
    }
    bool live(size_t slot) const { return (bits(0)[slot / kBlockItems] >> slot % kBlockItems & 1) != 0; }
    uint64_t attributes(size_t slot) const;

    // Copies the upper codes of a slot to upper, [width], and returns its scale.
    float read(size_t slot, int8_t* upper) const;

    // allowed[b] has the bits of the live slots of block b whose items pass the filter.
    void select(const ItemFilter& filter, uint16_t* allowed) const;

    // Bounds of the lengths of the vectors of upper and of lower codes, over everything written so far.
    double upper_length() const { return upper_length_; }
    double lower_length() const { return lower_length_; }

    // Brings the memory of a slot into the cache for write(). Needs no lock.
    [[gnu::always_inline]] void prefetch(size_t slot) const {
        for (size_t byte = 0; byte < shape_.block_bytes; byte += 64)
            __builtin_prefetch(block(slot / kBlockItems) + byte, 1);
        for (size_t byte = 0; byte < shape_.row_bytes; byte += 64) __builtin_prefetch(row(slot) + byte, 1);
    }

    // A slot has an id from set_id() on, and an item that is found from write() until clear().
    void set_id(size_t slot, uint64_t id) { std::memcpy(memory_ + row_at(slot), &id, sizeof(id)); }
    void write(size_t slot, const CodedItem& item, uint64_t attributes);
    void clear(size_t slot) { bits(0)[slot / kBlockItems] &= static_cast<uint16_t>(~(1u << slot % kBlockItems)); }

private:
    size_t row_at(size_t slot) const { return shape_.rows_at() + slot * shape_.row_bytes; }
    const std::byte* row(size_t slot) const { return memory_ + row_at(slot); }

    // Bitmap 0 has the live slots, bitmap 1 + a those with attribute a; a word per block.
    uint16_t* bits(size_t bitmap) const {
        return reinterpret_cast<uint16_t*>(memory_ + shape_.bits_at()) + bitmap * SegmentShape::kBlocks;
    }

    const SegmentShape& shape_;
    std::byte* memory_;
    double upper_length_ = 0, lower_length_ = 0;
    mutable std::shared_mutex mutex_;
};

}  // namespace springtide
