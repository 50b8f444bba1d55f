#include "join_index.h"

#include <bit>
#include <utility>

namespace freshet {
namespace {

constexpr size_t kLeastCapacity = 16;
constexpr size_t kAhead = 12;
// The odd number next to 2^64 / golden ratio: spreads ids that differ in few bits over the table's top bits.
constexpr uint64_t kSpread = 0x9E3779B97F4A7C15;

}  // namespace

JoinIndex::JoinIndex() : entries_(kLeastCapacity) {}

size_t JoinIndex::home(const Id& id) const {
    const int shift = 64 - std::countr_zero(entries_.size());
    return ((id.words[0] ^ std::rotl(id.words[1], 32)) * kSpread) >> shift;
}

size_t JoinIndex::find(const Id& id) const {
    const size_t mask = entries_.size() - 1;
    size_t at = home(id);
    while (entries_[at].place != kNone && !(entries_[at].id == id)) at = (at + 1) & mask;
    return at;
}

// Asks for the entries of an id a few rows ahead, so that their misses overlap.
void JoinIndex::fetch_ahead(const uint64_t* ids, size_t i, size_t n) const {
    if (i + kAhead < n) __builtin_prefetch(&entries_[home({{ids[2 * (i + kAhead)], ids[2 * (i + kAhead) + 1]}})]);
}

void JoinIndex::insert(const uint64_t* ids, const uint64_t* places, size_t n, uint64_t* out) {
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        if ((size_ + 1) * 8 > entries_.size() * 5) resize(entries_.size() * 2);
        const Id id{{ids[2 * i], ids[2 * i + 1]}};
        Entry& entry = entries_[find(id)];
        out[i] = entry.place;
        if (entry.place != kNone) continue;
        entry = {id, places[i]};
        ++size_;
    }
}

void JoinIndex::match(const uint64_t* ids, size_t n, uint64_t* out) const {
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        out[i] = entries_[find({{ids[2 * i], ids[2 * i + 1]}})].place;
    }
}

size_t JoinIndex::remove(const uint64_t* ids, size_t n) {
    const size_t before = size_;
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        const size_t at = find({{ids[2 * i], ids[2 * i + 1]}});
        if (entries_[at].place != kNone) free_entry(at);
    }
    shrink();
    return before - size_;
}

size_t JoinIndex::remove_at(const uint64_t* ids, const uint64_t* places, size_t n) {
    const size_t before = size_;
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        const size_t at = find({{ids[2 * i], ids[2 * i + 1]}});
        if (entries_[at].place == places[i] && places[i] != kNone) free_entry(at);
    }
    shrink();
    return before - size_;
}

void JoinIndex::shrink() {
    size_t capacity = entries_.size();
    while (capacity > kLeastCapacity && size_ * 8 < capacity) capacity /= 2;
    if (capacity != entries_.size()) resize(capacity);
}

void JoinIndex::free_entry(size_t hole) {
    const size_t mask = entries_.size() - 1;
    for (size_t at = (hole + 1) & mask; entries_[at].place != kNone; at = (at + 1) & mask) {
        // An entry may fill the hole unless its home lies behind the hole on the way to where it stands now.
        if (((at - home(entries_[at].id)) & mask) < ((at - hole) & mask)) continue;
        entries_[hole] = entries_[at];
        hole = at;
    }
    entries_[hole] = Entry{};
    --size_;
}

void JoinIndex::resize(size_t capacity) {
    std::vector<Entry> old(capacity);
    std::swap(old, entries_);
    for (const Entry& entry : old)
        if (entry.place != kNone) entries_[find(entry.id)] = entry;
}

}  // namespace freshet
