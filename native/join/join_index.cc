#include "join/join_index.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <utility>

namespace springtide {
namespace {

constexpr size_t kLeastCapacity = 16;
constexpr size_t kMostCapacity = size_t{1} << 32;
constexpr size_t kAhead = 12;
// The odd number next to 2^64 / golden ratio: spreads ids that differ in few bits over the product's top bits.
constexpr uint64_t kSpread = 0x9E3779B97F4A7C15;

// How many entries the slots are good for.
size_t most_entries(size_t capacity) { return capacity * 5 / 8; }

}  // namespace

JoinIndex::JoinIndex() : slots_(kLeastCapacity) {}

void JoinIndex::reserve(size_t n) {
    size_t capacity = slots_.size();
    while (most_entries(capacity) < n) capacity *= 2;
    if (capacity != slots_.size()) rebuild(capacity);
}

uint32_t JoinIndex::tag_of(const Id& id) {
    return static_cast<uint32_t>(((id.words[0] ^ std::rotl(id.words[1], 32)) * kSpread) >> 32);
}

size_t JoinIndex::home(uint32_t tag) const { return tag >> (32 - std::countr_zero(slots_.size())); }

uint64_t JoinIndex::place_of(const Slot& slot) const {
    if (slot.entry == kNothing || !kept(entries_[slot.entry])) return kNone;
    const Entry& entry = entries_[slot.entry];
    return uint64_t{buckets_[entry.bucket].number} << 32 | entry.row;
}

size_t JoinIndex::find(const Id& id) const {
    const uint32_t tag = tag_of(id);
    const size_t mask = slots_.size() - 1;
    size_t at = home(tag);
    for (; slots_[at].entry != kNothing; at = (at + 1) & mask)
        if (slots_[at].tag == tag && entries_[slots_[at].entry].id == id) break;
    return at;
}

// Asks for the slots of an id a few rows ahead, so that their misses overlap. Inlined by force: GCC takes a call that
// does nothing else for one that does nothing.
[[gnu::always_inline]] inline void JoinIndex::fetch_ahead(const uint64_t* ids, size_t i, size_t n) const {
    if (i + kAhead < n) __builtin_prefetch(&slots_[home(tag_of(id_of(ids, i + kAhead)))]);
}

void JoinIndex::insert(const uint64_t* ids, const uint64_t* places, size_t n, uint64_t* out) {
    uint32_t bucket = kNothing;
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        if (entries_.size() == most_entries(slots_.size())) make_room();
        const Id id = id_of(ids, i);
        Slot& slot = slots_[find(id)];
        out[i] = place_of(slot);
        if (out[i] != kNone) continue;
        // Neighbours are mostly of one bucket.
        if (bucket == kNothing || buckets_[bucket].number != places[i] >> 32) bucket = bucket_of(places[i]);
        const Entry entry{id, bucket, static_cast<uint32_t>(places[i])};
        if (slot.entry == kNothing) {
            entries_.push_back(entry);
            slot = {tag_of(id), static_cast<uint32_t>(entries_.size() - 1)};
        } else {
            entries_[slot.entry] = entry;
        }
        ++buckets_[bucket].entries;
        ++size_;
    }
}

void JoinIndex::match(const uint64_t* ids, size_t n, uint64_t* out) const {
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        out[i] = place_of(slots_[find(id_of(ids, i))]);
    }
}

size_t JoinIndex::remove(const uint64_t* ids, size_t n) {
    const size_t before = size_;
    for (size_t i = 0; i < n; ++i) {
        fetch_ahead(ids, i, n);
        const Slot& slot = slots_[find(id_of(ids, i))];
        if (place_of(slot) != kNone) drop(entries_[slot.entry]);
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
    if (const auto found = by_number_.find(number); found != by_number_.end()) return found->second;
    if (unused_.empty()) {
        buckets_.emplace_back();
        unused_.push_back(static_cast<uint32_t>(buckets_.size() - 1));
    }
    const uint32_t bucket = unused_.back();
    by_number_.emplace(number, bucket);
    unused_.pop_back();
    buckets_[bucket] = {number, false, 0};
    return bucket;
}

void JoinIndex::drop(Entry& entry) {
    const uint32_t bucket = std::exchange(entry.bucket, kNothing);
    --size_;
    if (--buckets_[bucket].entries != 0) return;
    by_number_.erase(buckets_[bucket].number);
    release(bucket);
}

void JoinIndex::release(uint32_t bucket) {
    buckets_[bucket] = Bucket{};
    unused_.push_back(bucket);
}

// A sweep reads everything, so it has to find something: at least a quarter of what is there.
void JoinIndex::make_room() {
    const bool sweep = (entries_.size() - size_) * 4 >= entries_.size();
    rebuild(sweep ? slots_.size() : slots_.size() * 2);
}

void JoinIndex::shrink() {
    size_t capacity = slots_.size();
    while (capacity > kLeastCapacity && size_ * 8 < capacity) capacity /= 2;
    if (capacity == slots_.size()) return;
    rebuild(capacity);
    entries_.shrink_to_fit();
}

// Whatever may fail comes first.
void JoinIndex::rebuild(size_t capacity) {
    if (capacity > kMostCapacity) throw std::length_error("the join index holds more than 2^31 ids");
    if (capacity > slots_.size()) entries_.reserve(most_entries(capacity));
    if (capacity == slots_.size())
        std::fill(slots_.begin(), slots_.end(), Slot{});
    else
        slots_ = std::vector<Slot, HugePages<Slot>>(capacity);
    std::erase_if(entries_, [this](const Entry& entry) { return !kept(entry); });
    const size_t mask = capacity - 1;
    for (size_t i = 0; i < entries_.size(); ++i) {
        if (i + kAhead < entries_.size()) __builtin_prefetch(&slots_[home(tag_of(entries_[i + kAhead].id))]);
        const uint32_t tag = tag_of(entries_[i].id);
        size_t at = home(tag);
        while (slots_[at].entry != kNothing) at = (at + 1) & mask;
        slots_[at] = {tag, static_cast<uint32_t>(i)};
    }
    for (uint32_t i = 0; i < buckets_.size(); ++i)
        if (buckets_[i].gone) release(i);
}

}  // namespace springtide
