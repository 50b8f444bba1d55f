// How often a key was seen, about: a count-min sketch with conservative update (Cormode & Muthukrishnan 2005; Estan &
// Varghese 2002, section 3.3.2).
//
// Estimates are never below the true count (since the last halvings) and stop at 2^32 - 1. Memory is 4 * width * depth
// bytes, taken once. Additions and questions cost `depth` probes. Not thread-safe: one caller at a time.
//
// Bytes (little-endian): "FSK1", depth u32, width u64, seed u64, then the counters, row after row, as LEB128 varints in
// which a 0 is followed by the number of zeros in its run, then XXH64 (seed 0) of all before it, u64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace springtide {

class CountingSketch {
public:
    // A gigabyte of them. What a file says about its own size is only believed up to here.
    static constexpr uint64_t kMostCounters = uint64_t{1} << 28;
    static constexpr uint32_t kMostRows = 16;

    // Wants width >= 1, 1 <= depth <= kMostRows and width * depth <= kMostCounters. May throw std::bad_alloc.
    CountingSketch(uint64_t width, uint32_t depth, uint64_t seed);

    // Counts keys[i] counts[i] times, in order; `counts` null means once each. out[i] is the estimate of keys[i] after
    // its addition. The same as adding every occurrence by itself, one after the other.
    void add(const uint64_t* keys, const uint32_t* counts, size_t n, uint32_t* out);

    // out[i] is the estimate of keys[i], 0 where it was certainly never seen. Changes nothing.
    void estimate(const uint64_t* keys, size_t n, uint32_t* out) const;

    // Halves every counter, rounding down.
    void halve();

    std::vector<uint8_t> to_bytes() const;

    // The sketch that gave these bytes; nothing where they are not what `to_bytes` gives, to the last bit. Memory is only
    // taken once the counters are known to be there.
    static std::optional<CountingSketch> from_bytes(const uint8_t* bytes, size_t n);

    // XXH64 of shape, seed and counters: equal sketches have equal digests.
    uint64_t digest() const;

    uint64_t width() const { return width_; }
    uint32_t depth() const { return depth_; }
    uint64_t seed() const { return seed_; }

private:
    static constexpr size_t kAbreast = 16;  // keys whose counters are fetched together
    using Places = size_t[kAbreast][kMostRows];  // of one key's counters, row after row

    void find_places(const uint64_t* keys, size_t n, Places& places) const;
    template <class Visit>
    void for_each(const uint64_t* keys, size_t n, Visit visit) const;

    uint64_t width_;
    uint32_t depth_;
    uint64_t seed_;
    std::vector<uint32_t> counters_;  // [depth][width]
};

}  // namespace springtide
