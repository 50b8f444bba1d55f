// LineArray: the memory of a KeyIndex, cache lines of twelve hash table entries.
//
// An array of home lines, followed by lines for keys that overflow the last one. It grows at the end and frees memory
// from the front, in chunks of 2 MiB. Not thread-safe; concurrent reads are safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "memory/pages.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace springtide {

struct alignas(64) Line {
    static constexpr unsigned kEntries = 12;
    static constexpr uint16_t kSaturated = 0xffff;

    uint8_t tags[kEntries];  // 0 in a free entry only; used entries come first
    uint16_t overflows;      // keys that found the line full and are stored further on; constant once kSaturated
    uint8_t used;            // number of used entries
    uint8_t padding;
    uint32_t rows[kEntries];

    // Bit i is set if tags[i] == tag.
    uint32_t matches(uint8_t tag) const {
#ifdef __SSE2__
        const __m128i head = _mm_load_si128(reinterpret_cast<const __m128i*>(tags));
        const int equal = _mm_movemask_epi8(_mm_cmpeq_epi8(head, _mm_set1_epi8(static_cast<char>(tag))));
        return static_cast<uint32_t>(equal) & ((1u << kEntries) - 1);
#else
        uint32_t equal = 0;
        for (unsigned entry = 0; entry < kEntries; ++entry) equal |= uint32_t{tags[entry] == tag} << entry;
        return equal;
#endif
    }

    void add(uint8_t tag, uint32_t row) {
        tags[used] = tag;
        rows[used++] = row;
    }

    void remove(unsigned entry) {
        --used;
        tags[entry] = tags[used];
        rows[entry] = rows[used];
        tags[used] = 0;
    }

    void count_overflow() { overflows += overflows != kSaturated; }
    void uncount_overflow() { overflows -= overflows != kSaturated; }
};

static_assert(sizeof(Line) == 64, "a line is a cache line");

class LineArray {
public:
    // `homes` empty home lines, allocated by ensure().
    explicit LineArray(size_t homes = 0) : homes_(homes) {}

    size_t homes() const { return homes_; }
    size_t size() const { return size_; }

    // The home line of a hash; monotonic in the hash.
    size_t home_of(uint64_t hash) const {
        __extension__ using Wide = unsigned __int128;
        return static_cast<size_t>(static_cast<Wide>(hash) * homes_ >> 64);
    }

    Line& operator[](size_t line) { return starts_[line / kChunkLines][line % kChunkLines]; }
    const Line& operator[](size_t line) const { return starts_[line / kChunkLines][line % kChunkLines]; }

    // Allocates the memory of lines up to and including this one, for ensure(). Throws std::bad_alloc.
    void reserve(size_t line);

    // Adds empty lines up to and including this one. Throws std::bad_alloc.
    void ensure(size_t line) {
        if (line < size_) return;
        reserve(line);
        size_ = line + 1;
    }

    // Frees the memory of lines below this one, in complete chunks.
    void release_below(size_t line);

    size_t memory_bytes() const;

private:
    static constexpr size_t kChunkLines = Pages::kHugeBytes / sizeof(Line);

    size_t homes_ = 0, size_ = 0;
    size_t released_ = 0;  // number of freed chunks
    std::vector<Pages> chunks_;
    std::vector<Line*> starts_;
};

}  // namespace springtide
