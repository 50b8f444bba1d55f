#include "chunked_rows.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace freshet {
namespace {

constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr size_t kMostRows = 0xffffffff;  // the last number means "no row"

}  // namespace

ChunkedRows::ChunkedRows(size_t row_bytes)
    : row_bytes_(row_bytes),
      shift_(static_cast<uint32_t>(std::bit_width(std::max<size_t>(kChunkBytes / row_bytes, 16)) - 1)),
      mask_((1u << shift_) - 1) {}

uint32_t ChunkedRows::take() {
    if (!free_.empty()) {
        const uint32_t row = free_.back();
        free_.pop_back();
        return row;
    }
    if (bound_ == kMostRows) throw std::length_error("table: got 2^32 rows, wanted fewer. hint: use more shards");
    // Chunks are not zeroed: every float is written when its row is made.
    if (bound_ >> shift_ == chunks_.size())
        chunks_.push_back(std::make_unique_for_overwrite<std::byte[]>(row_bytes_ << shift_));
    return static_cast<uint32_t>(bound_++);
}

}  // namespace freshet
