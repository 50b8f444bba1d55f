// ColdKeys: the keys of a table whose rows are on disk only, each with what expiry reads of its row.
//
// Open addressing with linear probing in 256 segments by hash. Of two keys in a probe sequence the one further from its
// home comes first (Celis, "Robin Hood hashing", 1986), so a search for a missing key ends as early as for a present
// one. A segment grows by an eighth on its own: an insert moves at most one segment. Memory: 17.8 to 20 bytes per key
// beyond some thousands of keys. The set never shrinks.
//
// Any uint64 is a key. The order of keys depends on history. Not thread-safe; concurrent const calls are safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

struct ColdKey {
    uint64_t key;
    uint32_t last_seen_s;
    float importance;  // at least 0; negative in a free entry
};
static_assert(sizeof(ColdKey) == 16, "the set is as large as its entries");

class ColdKeys {
public:
    size_t size() const { return size_; }
    size_t memory_bytes() const;

    // The entry of a key, valid until the next insert() or erase(); null if it is not in the set.
    const ColdKey* find(uint64_t key) const;

    // found[i] = 1 if keys[i] is in the set, otherwise 0.
    void contains(std::span<const uint64_t> keys, uint8_t* found) const;

    // Adds a key that is not in the set.
    void insert(const ColdKey& added);

    // The same for many keys, which are distinct.
    void insert(std::span<const ColdKey> added);

    // Room for about so many keys, which are then inserted without growth.
    void reserve(size_t keys);

    // Removes a key; does nothing if it is not in the set.
    void erase(uint64_t key);

    // Calls visit(entry) for every key, in no particular order.
    template <class Visit>
    void for_each(Visit visit) const {
        for (const Segment& segment : segments_)
            for (const ColdKey& entry : segment.entries)
                if (used(entry)) visit(entry);
    }

private:
    static constexpr size_t kSegments = 256;
    static constexpr unsigned kSegmentBits = 8;

    struct Segment {
        std::vector<ColdKey> entries;
        size_t count = 0;

        size_t home_of(uint64_t hash) const;
        size_t next(size_t at) const { return at + 1 == entries.size() ? 0 : at + 1; }
        size_t displacement(size_t at) const;  // of the used entry at `at` from its home
        size_t find(uint64_t key, uint64_t hash) const;  // its place, or the number of entries
        void insert(ColdKey added);
        void grow(size_t size);
    };

    static constexpr ColdKey kFree{0, 0, -1.0f};
    static bool used(const ColdKey& entry) { return entry.importance >= 0; }
    void prefetch(uint64_t key) const;
    static uint64_t hash_of(uint64_t key);
    static size_t segment_of(uint64_t hash) { return hash >> (64 - kSegmentBits); }

    std::vector<Segment> segments_;  // none before the first key
    size_t size_ = 0;
};

}  // namespace springtide
