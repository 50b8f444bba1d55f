// SegmentList: the segments of an index. It grows while others read it, and nothing in it ever moves.
//
// Threads: one writer that adds; any number of readers, without a lock, of the segments below a size() they have read.
// Memory: that of the segments in chunks of at least 2 MiB, 120 bytes per segment, and 64 KiB. Freed by the destructor.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>

#include "recall/scan/item_segment.h"
#include "table/chunked_rows.h"

namespace springtide {

class SegmentList {
public:
    explicit SegmentList(const SegmentShape& shape) : shape_(shape), memory_(shape.bytes()) {}

    size_t size() const { return size_.load(std::memory_order_acquire); }
    ItemSegment& operator[](size_t number) const { return *(*parts_[number / kPart])[number % kPart]; }

    // Adds an empty segment. Throws std::bad_alloc, or std::length_error if 2^32 slots exist.
    void add();

    const SegmentShape& shape() const { return shape_; }
    size_t memory_bytes() const;

private:
    static constexpr size_t kPart = 1024;
    static constexpr size_t kParts = (size_t{1} << 32) / SegmentShape::kSlots / kPart;

    using Part = std::array<std::unique_ptr<ItemSegment>, kPart>;

    const SegmentShape shape_;
    ChunkedRows memory_;
    std::array<std::unique_ptr<Part>, kParts> parts_;
    std::atomic<size_t> size_ = 0;
};

}  // namespace springtide
