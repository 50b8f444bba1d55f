#include "table/chunked_rows.h"

#include <algorithm>
#include <stdexcept>

namespace springtide {
namespace {

size_t chunk_bytes(size_t row_bytes) {
    return Pages::rounded(std::max(Pages::kHugeBytes, 2 * row_bytes), Pages::kHugeBytes);
}

}  // namespace

ChunkedRows::ChunkedRows(size_t row_bytes)
    : row_bytes_(row_bytes),
      rows_per_chunk_(chunk_bytes(row_bytes) / row_bytes),
      inverse_(~uint64_t{0} / rows_per_chunk_ + 1) {}

uint32_t ChunkedRows::acquire() {
    if (free_ != kNone) {
        const uint32_t row = free_;
        std::memcpy(&free_, at(row), sizeof(free_));
        return row;
    }
    if (bound_ == kNone) throw std::length_error("table: got 2^32 rows, wanted fewer. hint: use more shards");
    if (bound_ == chunks_.size() * rows_per_chunk_) {
        // Most tables are small, so the pages of the first chunk are lazy.
        chunks_.emplace_back(chunk_bytes(row_bytes_), chunks_.empty() ? Pages::Use::kLazy : Pages::Use::kPopulated);
        starts_.push_back(chunks_.back().data());
    }
    return static_cast<uint32_t>(bound_++);
}

size_t ChunkedRows::memory_bytes() const {
    const size_t lists = chunks_.capacity() * sizeof(Pages) + starts_.capacity() * sizeof(std::byte*);
    if (chunks_.size() <= 1) return lists + Pages::rounded(bound_ * row_bytes_, Pages::kBytes);
    return lists + chunks_.size() * chunk_bytes(row_bytes_);
}

}  // namespace springtide
