// ChunkedRows: fixed-size byte rows that never move, numbered from 0.
//
// Rows are stored in chunks of 2 MiB: growth allocates one chunk at a time and copies nothing, and a pointer is valid
// until its row is released. Released numbers are reused, last in first out; chunks are freed by the destructor only.
// The row size is a multiple of 4, and rows are aligned to 4. Not thread-safe; concurrent reads are safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "memory/pages.h"

namespace springtide {

class ChunkedRows {
public:
    explicit ChunkedRows(size_t row_bytes);

    // Allocates a row with undefined content. Throws std::length_error at 2^32 - 1 rows, and std::bad_alloc.
    uint32_t acquire();

    // Frees a row that acquire() returned; its content is lost.
    void release(uint32_t row) {
        std::memcpy(at(row), &free_, sizeof(free_));
        free_ = row;
    }

    std::byte* operator[](uint32_t row) { return at(row); }
    const std::byte* operator[](uint32_t row) const { return at(row); }

    size_t row_bytes() const { return row_bytes_; }

    // All numbers allocated so far are below this.
    size_t bound() const { return bound_; }

    size_t memory_bytes() const;

private:
    static constexpr uint32_t kNone = 0xffffffff;

    // Division by a constant as a multiplication (Lemire, Kaser and Kurz, "Faster remainder by direct computation",
    // 2019); exact for every 32-bit row.
    std::byte* at(uint32_t row) const {
        __extension__ using Wide = unsigned __int128;
        const uint64_t chunk = static_cast<uint64_t>(static_cast<Wide>(inverse_) * row >> 64);
        return starts_[chunk] + (row - chunk * rows_per_chunk_) * row_bytes_;
    }

    size_t row_bytes_, rows_per_chunk_;
    uint64_t inverse_;
    size_t bound_ = 0;
    std::vector<Pages> chunks_;
    std::vector<std::byte*> starts_;
    uint32_t free_ = kNone;  // head of the free list: each released row begins with the number of the next one
};

}  // namespace springtide
