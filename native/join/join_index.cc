#include "join/join_index.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <utility>

namespace springtide {
namespace {

constexpr size_t kMinCapacity = 16;
constexpr size_t kMaxCapacity = size_t{1} << 32;
constexpr size_t kPrefetchDistance = 12;  // rows
// The odd number next to 2^64 / golden ratio: distributes ids that differ in few bits over the top bits of the product.
constexpr uint64_t kHashMultiplier = 0x9E3779B97F4A7C15;

// The number of entries allowed for a number of slots.
size_t max_entries(size_t capacity) { return capacity * 5 / 8; }

}  // namespace

JoinIndex::JoinIndex() : slots_(kMinCapacity) {}

void JoinIndex::reserve(size_t n) {
    size_t capacity = slots_.size();
    while (max_entries(capacity) < n) capacity *= 2;
    if (capacity != slots_.size()) rebuild(capacity);
}

uint32_t JoinIndex::tag_of(const Id& id) {
    return static_cast<uint32_t>(((id.words[0] ^ std::rotl(id.words[1], 32)) * kHashMultiplier) >> 32);
}

size_t JoinIndex::home(uint32_t tag) const { return tag >> (32 - std::countr_zero(slots_.size())); }

uint64_t JoinIndex::place_of(const Slot& slot) const {
    if (slot.entry == kNothing || !live(entries_[slot.entry])) return kNone;
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

// Prefetches the slots of an id a few rows ahead, so that cache misses overlap. always_inline: GCC drops calls to a
// function that only prefetches.
[[gnu::always_inline]] inline void JoinIndex::prefetch_ahead(const uint64_t* ids, size_t i, size_t n) const {
    if (i + kPrefetchDistance < n) __builtin_prefetch(&slots_[home(tag_of(id_of(ids, i + kPrefetchDistance)))]);
}

void JoinIndex::insert(const uint64_t* ids, const uint64_t* places, size_t n, uint64_t* out) {
    uint32_t bucket = kNothing;
    for (size_t i = 0; i < n; ++i) {
        prefetch_ahead(ids, i, n);
        if (entries_.size() == max_entries(slots_.size())) sweep_or_grow();
        const Id id = id_of(ids, i);
        Slot& slot = slots_[find(id)];
        out[i] = place_of(slot);
        if (out[i] != kNone) continue;
        // Consecutive places mostly have the same bucket.
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
        prefetch_ahead(ids, i, n);
        out[i] = place_of(slots_[find(id_of(ids, i))]);
    }
}

size_t JoinIndex::remove(const uint64_t* ids, size_t n) {
    const size_t before = size_;
    for (size_t i = 0; i < n; ++i) {
        prefetch_ahead(ids, i, n);
        const Slot& slot = slots_[find(id_of(ids, i))];
        if (place_of(slot) != kNone) remove_entry(entries_[slot.entry]);
    }
    shrink();
    return before - size_;
}

size_t JoinIndex::remove_bucket(uint32_t number) {
    const auto found = by_number_.find(number);
    if (found == by_number_.end()) return 0;
    Bucket& bucket = buckets_[found->second];
    by_number_.erase(found);
    bucket.removed = true;
    const size_t entries = bucket.entries;
    size_ -= entries;
    shrink();
    return entries;
}

// The index in buckets_ of a place's bucket, which is created if missing.
uint32_t JoinIndex::bucket_of(uint64_t place) {
    const auto number = static_cast<uint32_t>(place >> 32);
    if (const auto found = by_number_.find(number); found != by_number_.end()) return found->second;
    if (free_buckets_.empty()) {
        buckets_.emplace_back();
        free_buckets_.push_back(static_cast<uint32_t>(buckets_.size() - 1));
    }
    const uint32_t bucket = free_buckets_.back();
    by_number_.emplace(number, bucket);
    free_buckets_.pop_back();
    buckets_[bucket] = {number, false, 0};
    return bucket;
}

void JoinIndex::remove_entry(Entry& entry) {
    const uint32_t bucket = std::exchange(entry.bucket, kNothing);
    --size_;
    if (--buckets_[bucket].entries != 0) return;
    by_number_.erase(buckets_[bucket].number);
    release(bucket);
}

void JoinIndex::release(uint32_t bucket) {
    buckets_[bucket] = Bucket{};
    free_buckets_.push_back(bucket);
}

// A sweep reads all entries, so it is worthwhile only if at least a quarter of them are dead.
void JoinIndex::sweep_or_grow() {
    const bool sweep = (entries_.size() - size_) * 4 >= entries_.size();
    rebuild(sweep ? slots_.size() : slots_.size() * 2);
}

void JoinIndex::shrink() {
    size_t capacity = slots_.size();
    while (capacity > kMinCapacity && size_ * 8 < capacity) capacity /= 2;
    if (capacity == slots_.size()) return;
    rebuild(capacity);
    entries_.shrink_to_fit();
}

// Everything that may throw is done before the first change.
void JoinIndex::rebuild(size_t capacity) {
    if (capacity > kMaxCapacity) throw std::length_error("join index: got more than 2^31 ids, wanted fewer");
    if (capacity > slots_.size()) entries_.reserve(max_entries(capacity));
    if (capacity == slots_.size())
        std::fill(slots_.begin(), slots_.end(), Slot{});
    else
        slots_ = std::vector<Slot, HugePages<Slot>>(capacity);
    std::erase_if(entries_, [this](const Entry& entry) { return !live(entry); });
    const size_t mask = capacity - 1;
    for (size_t i = 0; i < entries_.size(); ++i) {
        if (i + kPrefetchDistance < entries_.size())
            __builtin_prefetch(&slots_[home(tag_of(entries_[i + kPrefetchDistance].id))]);
        const uint32_t tag = tag_of(entries_[i].id);
        size_t at = home(tag);
        while (slots_[at].entry != kNothing) at = (at + 1) & mask;
        slots_[at] = {tag, static_cast<uint32_t>(i)};
    }
    for (uint32_t i = 0; i < buckets_.size(); ++i)
        if (buckets_[i].removed) release(i);
}

}  // namespace springtide
