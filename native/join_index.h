// Where an event with this 128-bit id is kept: the hash index over the join's held impressions.
//
// Open addressing with linear probing in a power-of-two table of 24-byte entries, at most 5/8 full; removal shifts the
// following entries back, so nothing is left behind however long ids come and go. Calls are amortised O(n). The table
// doubles when full and shrinks when less than 1/8 full. Not thread-safe: one caller at a time (matches alone may run
// together). An allocation that fails throws std::bad_alloc; what was inserted by then stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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

    // Forgets those of the ids that are kept with just their places[i]; returns how many were. One pass where match()
    // and remove() would be two.
    size_t remove_at(const uint64_t* ids, const uint64_t* places, size_t n);

    size_t size() const { return size_; }
    size_t capacity() const { return entries_.size(); }

private:
    struct Id {
        uint64_t words[2];
        bool operator==(const Id&) const = default;
    };
    struct Entry {
        Id id{};
        uint64_t place = kNone;  // kNone: the entry is free
    };

    size_t home(const Id& id) const;
    void fetch_ahead(const uint64_t* ids, size_t i, size_t n) const;
    size_t find(const Id& id) const;  // its entry, or the free one where it would go
    void free_entry(size_t hole);
    void shrink();
    void resize(size_t capacity);

    std::vector<Entry> entries_;
    size_t size_ = 0;
};

}  // namespace freshet
