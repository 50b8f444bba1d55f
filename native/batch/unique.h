// Uniquer: the distinct keys of a batch in order of first appearance, and the position of every key among them.
//
// A Uniquer reuses its hash table: a call allocates only if the batch has more distinct keys than any batch before, and
// nothing is cleared between calls. Not thread-safe: use one per thread. Expected linear time, about 1.3 probes per
// key, with the probes of several keys overlapped. Memory: 16 KiB, or 32 to 64 bytes per distinct key of the largest
// batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

class Uniquer {
public:
    Uniquer();

    // Returns the number u of distinct keys. Writes distinct[0..u), counts[0..u), the occurrences of each, and
    // inverse[0..m): distinct[inverse[j]] == keys[j]. Each output has room for m elements; those from u on are
    // unspecified. Any uint64 is a key. Throws std::invalid_argument, before any output, for 2^31 keys or more, which
    // `inverse` cannot index.
    size_t unique(std::span<const uint64_t> keys, uint64_t* distinct, int32_t* inverse, uint32_t* counts);

private:
    struct Slot {
        uint64_t key;
        int32_t position;  // of the key in `distinct`
        uint32_t stamp;    // the call that filled the slot; slots of earlier calls are free
    };

    void next_stamp();
    size_t insert(std::span<const uint64_t> keys, uint64_t* distinct, int32_t* inverse, uint32_t* counts, size_t& u);
    void grow(const uint64_t* distinct, size_t n);

    std::vector<Slot> slots_;
    int shift_;  // 64 - log2 of the number of slots
    uint32_t stamp_ = 0;
};

}  // namespace springtide
