// LineArray: the memory of a KeyIndex, cache lines that each hold twelve places of a hash table.
//
// An array of home lines, and behind them as many more as keys went past the last one. It grows at its end and gives
// memory back from its front, in chunks of 2 MiB. Not thread-safe; reading may run in parallel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pages.h"

namespace freshet {

struct alignas(64) Line {
    static constexpr unsigned kPlaces = 12;
    static constexpr uint16_t kUncounted = 0xffff;

    uint8_t tags[kPlaces];   // never 0 in a taken place, 0 in a free one; taken places come first
    uint16_t passed;         // keys that found the line full and went on; stays at kUncounted once there
    uint8_t used;            // taken places
    uint8_t unused;
    uint32_t rows[kPlaces];

    // Bit i is set where tags[i] is `tag`. Exact, eight tags at a time: a byte of x is 0 just where adding 0x7f to its
    // low bits carries nothing into its top bit and the top bit was 0 too.
    uint32_t places_of(uint8_t tag) const {
        const auto equal = [tag](uint64_t tags) {
            const uint64_t x = tags ^ tag * uint64_t{0x0101010101010101};
            const uint64_t tops = ~(((x & 0x7f7f7f7f7f7f7f7f) + 0x7f7f7f7f7f7f7f7f) | x | 0x7f7f7f7f7f7f7f7f);
            return static_cast<uint32_t>((tops >> 7) * 0x0102040810204080 >> 56);  // gathers a bit of each byte
        };
        uint64_t first;
        uint32_t last;
        std::memcpy(&first, tags, sizeof(first));
        std::memcpy(&last, tags + sizeof(first), sizeof(last));
        return equal(first) | (equal(last) & 0xf) << 8;
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

}  // namespace freshet
