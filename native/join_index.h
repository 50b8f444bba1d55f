// Where an event with this 128-bit id is kept: the hash index over the join's held impressions.
//
// A place is a bucket's number in its upper 32 bits and anything below. Buckets are forgotten whole, and for that nothing
// is searched: their entries count as gone from then on, and are swept out when the table would be full otherwise.
//
// Open addressing with linear probing in a power-of-two table of 24-byte entries, at most 5/8 full; removal of single ids
// shifts the following entries back, so nothing is left behind however long ids come and go. Calls are amortised O(n).
// The table doubles when full of what is kept and shrinks when less than 1/8 full. Not thread-safe: one caller at a time
// (matches alone may run together). An allocation that fails throws std::bad_alloc; what was inserted by then stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "huge_pages.h"

namespace freshet {

class JoinIndex {
public:
    // No place at all: what a miss returns, and never a place to insert.
    static constexpr uint64_t kNone = UINT64_MAX;

    JoinIndex();

    // For each i in order: out[i] is the place already kept under ids[i] (which stays), or kNone where there was none
    // and places[i] is kept from now on. An id twice in one batch finds its own earlier place. ids is [n][2]; places
    // differ from kNone.
    void insert(const uint64_t* ids, const uint64_t* places, size_t n, uint64_t* out);

    // out[i] is the place of ids[i] or kNone.
    void match(const uint64_t* ids, size_t n, uint64_t* out) const;

    // Forgets the ids; returns how many were there.
    size_t remove(const uint64_t* ids, size_t n);

    // Forgets every place in the bucket of this number; returns how many there were. O(1), and amortised a few entries read in passing
    // for each that was forgotten.
    size_t forget(uint32_t number);

    size_t size() const { return size_; }
    size_t capacity() const { return entries_.size(); }

private:
    struct Id {
        uint64_t words[2];
        bool operator==(const Id&) const = default;
    };
    struct Entry {
        Id id{};
        uint32_t bucket = kFree;  // in buckets_
        uint32_t row = 0;         // the lower half of the place
    };
    struct Bucket {
        uint32_t number = 0;  // the upper half of the place
        bool gone = false;    // forgotten; its entries are still there
        size_t entries = 0;
    };
    using Entries = std::vector<Entry, HugePages<Entry>>;

    static constexpr uint32_t kFree = UINT32_MAX;

    bool kept(const Entry& entry) const { return entry.bucket != kFree && !buckets_[entry.bucket].gone; }
    uint64_t place_of(const Entry& entry) const {
        return kept(entry) ? uint64_t{buckets_[entry.bucket].number} << 32 | entry.row : kNone;
    }
    size_t home(const Id& id) const;
    void fetch_ahead(const uint64_t* ids, size_t i, size_t n) const;
    size_t find(const Id& id) const;  // its entry, or the free one where it would go
    uint32_t bucket_of(uint64_t place);
    void free_entry(size_t hole);
    void make_room();
    void sweep();
    void shrink();
    void resize(size_t capacity);
    void swept();

    Entries entries_;
    size_t size_ = 0;  // entries that are kept
    size_t used_ = 0;  // those, and the ones of buckets that are gone
    std::vector<Bucket> buckets_;
    std::vector<uint32_t> unused_;  // numbers in buckets_ to be used again
    std::unordered_map<uint32_t, uint32_t> by_number_;
};

}  // namespace freshet
