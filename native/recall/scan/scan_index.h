// ScanIndex: the items nearest to a query by inner product, found by scoring all of them. Items are inserted, changed
// and removed by id while queries are answered.
//
// A vector is stored as two planes of one byte per component with a float scale (item_segment.h); queries are coded
// alike. A search is exact for the scores of these codes (query_batch.h): the k items with the highest scores, of equal
// scores those with the lower ids, at every SIMD level and whatever the history of the index is. A vector whose largest
// component is below 2^-40 counts as zero.
//
// Threads: any calls at any time. Searches share; changes are applied one after the other. Both lock one segment of
// 1,024 slots at a time, so they hardly delay each other. A search finds an item as it was at one moment of the search:
// with its vector, attributes and id of that moment. Searches that must see a batch of changes as a whole need an index
// of their own.
// Cost: one read of `width` bytes per slot for up to eight queries (scan.h), width being dim rounded up to 16. A change
// codes a vector and writes width / 4 + 3 cache lines; those of several items are fetched at the same time.
// Memory: about 2 * width + 32 bytes per slot, with the index by id, and a bit per attribute. Slots of removed items are
// reused; memory and time of a search follow the largest number of items held so far.
// Failure: std::bad_alloc, or std::length_error at 2^32 slots; a part of the change is applied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "recall/scan/scan.h"
#include "recall/scan/segment_list.h"
#include "table/index/key_index.h"

namespace springtide {

class ScanIndex {
public:
    static constexpr size_t kMaxDim = 512;
    static constexpr size_t kMaxAttributes = 64;

    // Requires 1 <= dim <= kMaxDim and attributes <= kMaxAttributes.
    ScanIndex(size_t dim, size_t attributes, SampleRule rule);

    // The first of n vectors, [n, dim], with a component that is not finite or beyond 2^40 in magnitude; n if all are
    // codable.
    size_t first_uncodable(const float* vectors, size_t n) const;

    // Inserts or replaces items; the last one of an id that is repeated counts. All vectors, [n, dim], must be codable.
    // attributes[i] has bit a for attribute a.
    void put(const uint64_t* ids, const float* vectors, const uint64_t* attributes, size_t n);

    // Removes items; returns how many of the ids were there.
    size_t remove(const uint64_t* ids, size_t n);

    // The best k items for each of n codable queries, [n, dim]; k >= 1. options: [n].
    std::vector<FoundItems> search(const float* queries, size_t n, size_t k, const SearchOptions* options) const;

    // Sum modulo 2^64 over all items of XXH64(scale, attributes as eight bytes, upper codes, lower codes; seed = id).
    // Independent of history. One pass, during which changes wait.
    uint64_t digest() const;

    size_t size() const;
    size_t memory_bytes() const;

private:
    struct Coded;  // a piece of a change

    ItemSegment& segment_of(uint32_t slot) const { return segments_[slot / SegmentShape::kSlots]; }
    std::vector<uint32_t> slots_of(std::span<const uint64_t> ids) const;
    uint32_t slot_for(uint64_t id);
    void add_segment();
    void write(std::span<const uint32_t> slots, const Coded& coded, const uint64_t* attributes);
    size_t remove_piece(std::span<const uint64_t> ids);

    const size_t dim_;
    const SampleRule rule_;
    SegmentList segments_;
    mutable std::mutex changes_;  // protects what follows; held while segments change
    KeyIndex index_;
    std::vector<uint32_t> free_;  // capacity for all slots
};

}  // namespace springtide
