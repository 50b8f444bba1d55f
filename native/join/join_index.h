// Where an event with this 128-bit id is kept: the hash index over the join's held impressions.
//
// A place is a bucket's number in its upper 32 bits and a row below. Buckets are forgotten whole, and for that nothing is
// searched: their entries count as gone from then on, and are swept out when the table would be full otherwise.
//
// Entries lie in the order they came. A power-of-two table of 8-byte slots, probed linearly and at most 5/8 full, leads to
// them by 32 bits of the id's hash, so an id that is new rarely touches anything but its slots. Takes 23 bytes for each
// slot. Calls are amortised O(n). The table doubles when full of what is kept and shrinks when less than 1/8 full. Not
// thread-safe: one caller at a time (matches alone may run together). At most 2^31 entries: more throw std::length_error.
// An allocation that fails throws std::bad_alloc; what was inserted by then stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "memory/huge_pages.h"

namespace springtide {

class JoinIndex {
public:
    // No place at all: what a miss returns, and never a place to insert.
    static constexpr uint64_t kNone = UINT64_MAX;

    JoinIndex();

    // Makes room for n entries in all, so that inserting them does not grow the table step by step. Changes nothing else.
    void reserve(size_t n);

    // For each i in order: out[i] is the place already kept under ids[i] (which stays), or kNone where there was none
    // and places[i] is kept from now on. An id twice in one batch finds its own earlier place. ids is [n][2]; places
    // differ from kNone.
    void insert(const uint64_t* ids, const uint64_t* places, size_t n, uint64_t* out);

    // out[i] is the place of ids[i] or kNone.
    void match(const uint64_t* ids, size_t n, uint64_t* out) const;

    // Forgets the ids; returns how many were there.
    size_t remove(const uint64_t* ids, size_t n);

    // Forgets every place in the bucket of this number; returns how many there were. O(1), and amortised a few entries
    // read in passing for each that was forgotten.
    size_t forget(uint32_t number);

    size_t size() const { return size_; }
    size_t capacity() const { return slots_.size(); }
    size_t memory_bytes() const { return slots_.size() * sizeof(Slot) + entries_.capacity() * sizeof(Entry); }

private:
    static constexpr uint32_t kNothing = UINT32_MAX;

    struct Id {
        uint64_t words[2];
        bool operator==(const Id&) const = default;
    };
    struct Entry {
        Id id;
        uint32_t bucket;  // in buckets_; kNothing: removed
        uint32_t row;     // the lower half of the place
    };
    struct Slot {
        uint32_t tag = 0;
        uint32_t entry = kNothing;  // kNothing: the slot is free
    };
    struct Bucket {
        uint32_t number = 0;  // the upper half of the place
        bool gone = false;    // forgotten; its entries are still there
        size_t entries = 0;
    };

    static uint32_t tag_of(const Id& id);
    static Id id_of(const uint64_t* ids, size_t i) { return {{ids[2 * i], ids[2 * i + 1]}}; }

    bool kept(const Entry& entry) const { return entry.bucket != kNothing && !buckets_[entry.bucket].gone; }
    uint64_t place_of(const Slot& slot) const;
    size_t home(uint32_t tag) const;
    void fetch_ahead(const uint64_t* ids, size_t i, size_t n) const;
    size_t find(const Id& id) const;  // its slot, or the free one where it would go
    uint32_t bucket_of(uint64_t place);
    void drop(Entry& entry);
    void release(uint32_t bucket);
    void make_room();
    void shrink();
    void rebuild(size_t capacity);

    std::vector<Slot, HugePages<Slot>> slots_;
    std::vector<Entry, HugePages<Entry>> entries_;  // some may no longer be kept
    size_t size_ = 0;                               // those that are
    std::vector<Bucket> buckets_;
    std::vector<uint32_t> unused_;  // numbers in buckets_ to be used again
    std::unordered_map<uint32_t, uint32_t> by_number_;
};

}  // namespace springtide
