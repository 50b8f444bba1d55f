// CountingSketch: estimated number of occurrences of keys, by a count-min sketch with conservative update (Cormode &
// Muthukrishnan 2005; Estan & Varghese 2002, section 3.3.2).
//
// An estimate is never below the true count, halved as often as the sketch, and saturates at 2^32 - 1. Memory: 4 bytes
// for each of width * depth counters, allocated once. An addition or estimate costs `depth` probes. Not thread-safe.
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
    // One gigabyte of counters. A stored sketch with more is rejected.
    static constexpr uint64_t kMaxCounters = uint64_t{1} << 28;
    static constexpr uint32_t kMaxDepth = 16;

    // Requires width >= 1, 1 <= depth <= kMaxDepth and width * depth <= kMaxCounters. Throws std::bad_alloc.
    CountingSketch(uint64_t width, uint32_t depth, uint64_t seed);

    // Adds counts[i] occurrences of keys[i], in order; one of each if `counts` is null. out[i] is the estimate of
    // keys[i] after its addition. Equivalent to adding every occurrence separately.
    void add(const uint64_t* keys, const uint32_t* counts, size_t n, uint32_t* out);

    // out[i] is the estimate of keys[i]. Before the first halve(), 0 means that the key was never added.
    void estimate(const uint64_t* keys, size_t n, uint32_t* out) const;

    // Halves every counter, rounding down.
    void halve();

    std::vector<uint8_t> to_bytes() const;

    // The sketch with these bytes; nothing if they differ in any bit from the to_bytes() of a sketch. Allocates the
    // counters only after the bytes were validated.
    static std::optional<CountingSketch> from_bytes(const uint8_t* bytes, size_t n);

    // XXH64 of width, depth, seed and counters.
    uint64_t digest() const;

    uint64_t width() const { return width_; }
    uint32_t depth() const { return depth_; }
    uint64_t seed() const { return seed_; }

private:
    static constexpr size_t kBlock = 16;          // keys whose counters are prefetched together
    using Positions = size_t[kBlock][kMaxDepth];  // positions of the counters of each key

    void find_positions(const uint64_t* keys, size_t n, Positions& positions) const;
    template <class Visit>
    void for_each(const uint64_t* keys, size_t n, Visit visit) const;

    uint64_t width_;
    uint32_t depth_;
    uint64_t seed_;
    std::vector<uint32_t> counters_;  // [depth][width]
};

}  // namespace springtide
