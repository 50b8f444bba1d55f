// ChunkedRows: fixed-size byte rows that never move, numbered from 0.
//
// Rows lie in chunks of about 256 KiB, so growing costs one chunk at a time and copies nothing; a pointer stays good
// until its row is released. Released numbers are used again, last one first; chunks are kept until the end. Row bytes
// are a multiple of 4 and rows are aligned to 4. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace freshet {

class ChunkedRows {
public:
    explicit ChunkedRows(size_t row_bytes);

    // A row with undefined content. Throws std::length_error at 2^32 - 1 rows, std::bad_alloc without memory.
    uint32_t take();

    // Gives a row back; its number must have come from take().
    void release(uint32_t row) { free_.push_back(row); }

    std::byte* operator[](uint32_t row) { return chunks_[row >> shift_].get() + (row & mask_) * row_bytes_; }
    const std::byte* operator[](uint32_t row) const { return chunks_[row >> shift_].get() + (row & mask_) * row_bytes_; }

    size_t row_bytes() const { return row_bytes_; }

    // Numbers handed out so far are below this.
    size_t bound() const { return bound_; }

    size_t memory_bytes() const { return (chunks_.size() << shift_) * row_bytes_ + free_.capacity() * sizeof(uint32_t); }

private:
    size_t row_bytes_;
    uint32_t shift_, mask_;
    size_t bound_ = 0;
    std::vector<std::unique_ptr<std::byte[]>> chunks_;
    std::vector<uint32_t> free_;
};

}  // namespace freshet
