// HandleIndex: handle → place, an array in pieces, for names that are given out in order.
//
// Sixteen places are a cache line of their own, made when the first of their handles is set and used again when the last
// is cleared: handles that die leave nothing behind but a quarter of a byte each. A dense set costs 4.25 bytes a handle.
// One whose neighbours are 2^14 away costs 4 KiB, the worst there is; up to 2 MiB more hold the pieces together.
//
// Threads: not thread-safe; questions may run in parallel with each other. Any handle but 2^32 - 1 can be set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "table/chunked_rows.h"

namespace springtide {

class HandleIndex {
public:
    static constexpr uint32_t kNoPlace = 0xffffffff;

    // The place of a handle, kNoPlace where it has none.
    uint32_t operator[](uint32_t handle) const {
        const size_t piece = handle / kPieceHandles;
        const uint32_t line = piece < pieces_.size() && pieces_[piece] ? pieces_[piece][line_of(handle)] : kNoLine;
        return line == kNoLine ? kNoPlace : places_at(line)[handle % kLineHandles];
    }

    // `place` is not kNoPlace. An allocation that fails throws std::bad_alloc and changes nothing.
    void set(uint32_t handle, uint32_t place);

    // A handle without a place stays as it is.
    void clear(uint32_t handle);

    size_t memory_bytes() const;

private:
    static constexpr uint32_t kNoLine = 0xffffffff;
    static constexpr size_t kLineHandles = 16;
    static constexpr size_t kPieceLines = 1024;
    static constexpr size_t kPieceHandles = kPieceLines * kLineHandles;

    static size_t line_of(uint32_t handle) { return handle / kLineHandles % kPieceLines; }
    const uint32_t* places_at(uint32_t line) const { return reinterpret_cast<const uint32_t*>(lines_[line]); }
    uint32_t* places_at(uint32_t line) { return reinterpret_cast<uint32_t*>(lines_[line]); }

    std::vector<std::unique_ptr<uint32_t[]>> pieces_;  // of each line of handles where its places are
    ChunkedRows lines_{kLineHandles * sizeof(uint32_t)};
};

}  // namespace springtide
