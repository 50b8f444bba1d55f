// JoinIndex: the hash index over the join's held impressions, from a 128-bit id to a place.
//
// A place is a bucket number in the upper 32 bits and a row in the lower 32. A bucket is removed without a search: its
// entries are dead from then on, and are swept before the table would have to grow.
//
// Entries are stored in insertion order. A power-of-two table of 8-byte slots, with linear probing and at most 5/8
// full, refers to them by 32 bits of the id's hash, so the search for a new id rarely reads more than its slots.
// Memory: 23 bytes per slot. Calls are amortised O(n). The table doubles if it is full of live entries and shrinks
// below 1/8. Not thread-safe, except for concurrent calls of match(). At most 2^31 entries, otherwise
// std::length_error. If an allocation fails, std::bad_alloc is thrown and entries inserted before remain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "memory/huge_pages.h"

namespace springtide {

class JoinIndex {
public:
    // The result for a missing id; not a valid place.
    static constexpr uint64_t kNone = UINT64_MAX;

    JoinIndex();

    // Allocates for n entries in total, so that inserting them does not grow the table step by step.
    void reserve(size_t n);

    // For each i in order: if ids[i] has a place, out[i] is that place, which is unchanged; otherwise places[i] is
    // stored and out[i] is kNone. An id repeated in the batch gets its first place. ids is [n][2]; places must not be
    // kNone.
    void insert(const uint64_t* ids, const uint64_t* places, size_t n, uint64_t* out);

    // out[i] is the place of ids[i], or kNone.
    void match(const uint64_t* ids, size_t n, uint64_t* out) const;

    // Removes ids; returns the number removed.
    size_t remove(const uint64_t* ids, size_t n);

    // Removes every place in the bucket with this number; returns how many. O(1); a later sweep reads a few entries per
    // removed one, amortised.
    size_t remove_bucket(uint32_t number);

    size_t size() const { return size_; }
    size_t capacity() const { return slots_.size(); }
    size_t memory_bytes() const { return slots_.size() * sizeof(Slot) + entries_.capacity() * sizeof(Entry); }

private:
    static constexpr uint32_t kNothing = UINT32_MAX;  // no entry, or no bucket

    struct Id {
        uint64_t words[2];
        bool operator==(const Id&) const = default;
    };
    struct Entry {
        Id id;
        uint32_t bucket;  // index in buckets_; kNothing if removed
        uint32_t row;     // the lower half of the place
    };
    struct Slot {
        uint32_t tag = 0;
        uint32_t entry = kNothing;  // index in entries_; kNothing if the slot is free
    };
    struct Bucket {
        uint32_t number = 0;   // the upper half of the place
        bool removed = false;  // its dead entries are not swept yet
        size_t entries = 0;
    };

    static uint32_t tag_of(const Id& id);
    static Id id_of(const uint64_t* ids, size_t i) { return {{ids[2 * i], ids[2 * i + 1]}}; }

    bool live(const Entry& entry) const { return entry.bucket != kNothing && !buckets_[entry.bucket].removed; }
    uint64_t place_of(const Slot& slot) const;
    size_t home(uint32_t tag) const;
    void prefetch_ahead(const uint64_t* ids, size_t i, size_t n) const;
    size_t find(const Id& id) const;  // the slot of the id, or the free slot for it
    uint32_t bucket_of(uint64_t place);
    void remove_entry(Entry& entry);
    void release(uint32_t bucket);
    void sweep_or_grow();
    void shrink();
    void rebuild(size_t capacity);

    std::vector<Slot, HugePages<Slot>> slots_;
    std::vector<Entry, HugePages<Entry>> entries_;  // live and dead
    size_t size_ = 0;                               // number of live entries
    std::vector<Bucket> buckets_;
    std::vector<uint32_t> free_buckets_;  // indexes in buckets_ to reuse
    std::unordered_map<uint32_t, uint32_t> by_number_;  // bucket number → index in buckets_
};

}  // namespace springtide
