// The distinct keys of a batch in order of first appearance, and the place of every key among them.
//
// A Uniquer keeps its table from call to call: it allocates where a batch is more varied than any before and never else,
// and nothing is cleared in between. Not thread-safe, so one for each thread. Expected linear time: about 1.3 probes per
// key, those of neighbours overlapped. Memory: 16 KiB, or 32 to 64 bytes per distinct key of the most varied batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

// Vectors that a caller may keep from batch to batch, so that filling them allocates nothing either.
struct Unique {
    std::vector<uint64_t> keys;    // [u] in order of first appearance
    std::vector<int32_t> inverse;  // [m] keys[inverse[j]] is the j-th input
    std::vector<uint32_t> counts;  // [u] how often
};

class Uniquer {
public:
    Uniquer();

    // Returns u and writes distinct[0..u), counts[0..u) and inverse[0..m). Wants room for m in each, since u may be m;
    // what lies from u on is left unspecified. Any uint64 is a key. Throws std::invalid_argument, nothing written, for
    // 2^31 keys and more, which `inverse` could not name.
    size_t unique(std::span<const uint64_t> keys, uint64_t* distinct, int32_t* inverse, uint32_t* counts);

    // The same into vectors of the right length.
    void unique(std::span<const uint64_t> keys, Unique& result);

private:
    struct Slot {
        uint64_t key;
        int32_t place;   // of the key among the distinct ones
        uint32_t epoch;  // the call that filled this slot: the slots of earlier calls are free
    };

    void begin_epoch();
    size_t take(std::span<const uint64_t> keys, uint64_t* distinct, int32_t* inverse, uint32_t* counts, size_t& found);
    void grow(const uint64_t* distinct, size_t n);

    std::vector<Slot> slots_;
    int shift_;  // 64 - log2 of the number of slots
    uint32_t epoch_ = 0;
};

}  // namespace springtide
