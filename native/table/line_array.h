// LineArray: the memory of a KeyIndex, cache lines that each hold twelve places of a hash table.
//
// An array of home lines, and behind them as many more as keys went past the last one. It grows at its end and gives
// memory back from its front, in chunks of 2 MiB. Not thread-safe; reading may run in parallel.
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
    static constexpr unsigned kPlaces = 12;
    static constexpr uint16_t kUncounted = 0xffff;

    uint8_t tags[kPlaces];   // never 0 in a taken place, 0 in a free one; taken places come first
    uint16_t passed;         // keys that found the line full and went on; stays at kUncounted once there
    uint8_t used;            // taken places
    uint8_t unused;
    uint32_t rows[kPlaces];

    // Bit i is set where tags[i] is `tag`.
    uint32_t places_of(uint8_t tag) const {
#ifdef __SSE2__
        const __m128i head = _mm_load_si128(reinterpret_cast<const __m128i*>(tags));
        const int equal = _mm_movemask_epi8(_mm_cmpeq_epi8(head, _mm_set1_epi8(static_cast<char>(tag))));
        return static_cast<uint32_t>(equal) & ((1u << kPlaces) - 1);
#else
        uint32_t equal = 0;
        for (unsigned place = 0; place < kPlaces; ++place) equal |= uint32_t{tags[place] == tag} << place;
        return equal;
#endif
    }

    void add(uint8_t tag, uint32_t row) {
        tags[used] = tag;
        rows[used++] = row;
    }

    void remove(unsigned place) {
        --used;
        tags[place] = tags[used];
        rows[place] = rows[used];
        tags[used] = 0;
    }

    void pass() { passed += passed != kUncounted; }
    void unpass() { passed -= passed != kUncounted; }
};

static_assert(sizeof(Line) == 64, "a line is a cache line");

class LineArray {
public:
    // `homes` empty home lines, made as ensure() asks for them.
    explicit LineArray(size_t homes = 0) : homes_(homes) {}

    size_t homes() const { return homes_; }
    size_t size() const { return size_; }

    // The home of a hash: in the order of hashes.
    size_t home_of(uint64_t hash) const {
        __extension__ using Wide = unsigned __int128;
        return static_cast<size_t>(static_cast<Wide>(hash) * homes_ >> 64);
    }

    Line& operator[](size_t line) { return starts_[line / kChunkLines][line % kChunkLines]; }
    const Line& operator[](size_t line) const { return starts_[line / kChunkLines][line % kChunkLines]; }

    // Makes lines exist, empty, up to and with this one. Throws std::bad_alloc.
    void ensure(size_t line) {
        if (line >= size_) extend(line);
    }

    // Gives back the memory of lines below this one, as far as whole chunks of it are.
    void release_below(size_t line);

    size_t memory_bytes() const;

private:
    static constexpr size_t kChunkLines = Pages::kHugeBytes / sizeof(Line);

    void extend(size_t line);

    size_t homes_ = 0, size_ = 0;
    size_t released_ = 0;  // chunks
    std::vector<Pages> chunks_;
    std::vector<Line*> starts_;
};

}  // namespace springtide
