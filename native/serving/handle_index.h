// HandleIndex: handle → place, a sparse array for handles that are assigned in ascending order.
//
// Sixteen consecutive handles share a cache line (a line of places), allocated when the first of them is set and reused
// when the last is cleared; a cleared line costs a quarter of a byte per handle. Memory: 4.25 bytes per handle of a
// dense set; at most 4 KiB for a handle without neighbours within 2^14; up to 2 MiB for the table of pieces.
//
// Threads: not thread-safe; concurrent const calls are safe. Any handle except 2^32 - 1 can be set.
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

    // The place of a handle; kNoPlace if it has none.
    uint32_t operator[](uint32_t handle) const {
        const size_t piece = handle / kPieceHandles;
        const uint32_t line = piece < pieces_.size() && pieces_[piece] ? pieces_[piece][line_of(handle)] : kNoLine;
        return line == kNoLine ? kNoPlace : places_at(line)[handle % kLineHandles];
    }

    // `place` must not be kNoPlace. Throws std::bad_alloc, with nothing changed.
    void set(uint32_t handle, uint32_t place);

    // Does nothing for a handle without a place.
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

    std::vector<std::unique_ptr<uint32_t[]>> pieces_;  // numbers in lines_, one for sixteen handles
    ChunkedRows lines_{kLineHandles * sizeof(uint32_t)};
};

}  // namespace springtide
