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
    while (entries_[at].bucket != kFree && !(entries_[at].id == id)) at = (at + 1) & mask;
    return at;
}

// Asks for the entries of an id a few rows ahead, so that their misses overlap.
void JoinIndex::fetch_ahead(const uint64_t* ids, size_t i, size_t n) const {
    if (i + kAhead < n) __builtin_prefetch(&entries_[home({{ids[2 * (i + kAhead)], ids[2 * (i + kAhead) + 1]}})]);
}

void JoinIndex::insert(const uint64_t* ids, const uint64_t* places, size_t n, uint64_t* out) {
    uint32_t bucket = kFree;
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        if ((used_ + 1) * 8 > entries_.size() * 5) make_room();
        const Id id{{ids[2 * i], ids[2 * i + 1]}};
        Entry& entry = entries_[find(id)];
        out[i] = place_of(entry);
        if (out[i] != kNone) continue;
        // Neighbours are mostly of one bucket.
        if (bucket == kFree || buckets_[bucket].number != places[i] >> 32) bucket = bucket_of(places[i]);
        used_ += entry.bucket == kFree;
        entry = {id, bucket, static_cast<uint32_t>(places[i])};
        ++buckets_[bucket].entries;
        ++size_;
    }
}

void JoinIndex::match(const uint64_t* ids, size_t n, uint64_t* out) const {
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        out[i] = place_of(entries_[find({{ids[2 * i], ids[2 * i + 1]}})]);
    }
}

size_t JoinIndex::remove(const uint64_t* ids, size_t n) {
    const size_t before = size_;
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        const size_t at = find({{ids[2 * i], ids[2 * i + 1]}});
        if (kept(entries_[at])) free_entry(at);
    }
    shrink();
    return before - size_;
}

size_t JoinIndex::forget(uint32_t number) {
    const auto found = by_number_.find(number);
    if (found == by_number_.end()) return 0;
    Bucket& bucket = buckets_[found->second];
    by_number_.erase(found);
    bucket.gone = true;
    const size_t entries = bucket.entries;
    size_ -= entries;
    shrink();
    return entries;
}

// Where the bucket of a place is counted.
uint32_t JoinIndex::bucket_of(uint64_t place) {
    const auto number = static_cast<uint32_t>(place >> 32);
    const auto [found, added] = by_number_.try_emplace(number, 0);
    if (!added) return found->second;
    if (unused_.empty()) {
        unused_.push_back(static_cast<uint32_t>(buckets_.size()));
        buckets_.emplace_back();
    }
    found->second = unused_.back();
    unused_.pop_back();
    buckets_[found->second] = {number, false, 0};
    return found->second;
}

void JoinIndex::free_entry(size_t hole) {
    const size_t mask = entries_.size() - 1;
    Bucket& bucket = buckets_[entries_[hole].bucket];
    if (--bucket.entries == 0) {
        by_number_.erase(bucket.number);
        unused_.push_back(entries_[hole].bucket);
    }
    for (size_t at = (hole + 1) & mask; entries_[at].bucket != kFree; at = (at + 1) & mask) {
        // An entry may fill the hole unless its home lies behind the hole on the way to where it stands now.
        if (((at - home(entries_[at].id)) & mask) < ((at - hole) & mask)) continue;
        entries_[hole] = entries_[at];
        hole = at;
    }
    entries_[hole] = Entry{};
    --size_;
    --used_;
}

// A sweep reads everything, so it has to find something: at least a quarter of what is there.
void JoinIndex::make_room() {
    if ((used_ - size_) * 4 >= used_)
        sweep();
    else
        resize(entries_.size() * 2);
}

// Begins behind a free entry: no way from a home to its entry leads across that, so whatever is put back finds a place at
// or before its old one. Entries lie nearly in the order of their homes, so all of it is one pass through memory.
void JoinIndex::sweep() {
    const size_t mask = entries_.size() - 1;
    size_t at = 0;
    while (entries_[at].bucket != kFree) ++at;
    for (size_t step = 0; step < mask; ++step) {
        at = (at + 1) & mask;
        if (entries_[at].bucket == kFree) continue;
        const Entry entry = std::exchange(entries_[at], Entry{});
        if (kept(entry)) entries_[find(entry.id)] = entry;
    }
    swept();
}

void JoinIndex::shrink() {
    size_t capacity = entries_.size();
    while (capacity > kLeastCapacity && size_ * 8 < capacity) capacity /= 2;
    if (capacity != entries_.size()) resize(capacity);
}

void JoinIndex::resize(size_t capacity) {
    Entries old(capacity);
    std::swap(old, entries_);
    for (const Entry& entry : old)
        if (kept(entry)) entries_[find(entry.id)] = entry;
    swept();
}

// No entry is left of the buckets that are gone.
void JoinIndex::swept() {
    used_ = size_;
    for (uint32_t i = 0; i < buckets_.size(); ++i) {
        if (!buckets_[i].gone) continue;
        buckets_[i] = Bucket{};
        unused_.push_back(i);
    }
}

}  // namespace freshet
