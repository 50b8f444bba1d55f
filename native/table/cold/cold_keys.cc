#include "table/cold/cold_keys.h"

#include <algorithm>
#include <utility>

#include "keys/xxh64.h"

namespace springtide {
namespace {

constexpr size_t kPrefetchDistance = 16;  // keys

}  // namespace

uint64_t ColdKeys::hash_of(uint64_t key) { return xxh64_word(key, 0); }

size_t ColdKeys::Segment::home_of(uint64_t hash) const {
    __extension__ using Wide = unsigned __int128;
    return static_cast<size_t>(static_cast<Wide>(hash << kSegmentBits) * entries.size() >> 64);
}

size_t ColdKeys::Segment::displacement(size_t at) const {
    const size_t home = home_of(hash_of(entries[at].key));
    return at >= home ? at - home : at + entries.size() - home;
}

size_t ColdKeys::Segment::find(uint64_t key, uint64_t hash) const {
    if (entries.empty()) return 0;
    size_t at = home_of(hash);
    for (size_t distance = 0; used(entries[at]) && displacement(at) >= distance; ++distance) {
        if (entries[at].key == key) return at;
        at = next(at);
    }
    return entries.size();
}

// At most nine tenths of the entries are used.
void ColdKeys::Segment::insert(ColdKey added) {
    if ((count + 1) * 10 > entries.size() * 9) grow(entries.size() + entries.size() / 8 + 4);
    size_t at = home_of(hash_of(added.key));
    for (size_t distance = 0; used(entries[at]); ++distance, at = next(at)) {
        const size_t other = displacement(at);
        if (other >= distance) continue;
        std::swap(added, entries[at]);
        distance = other;
    }
    entries[at] = added;
    ++count;
}

void ColdKeys::Segment::grow(size_t size) {
    std::vector<ColdKey> before(size, kFree);
    std::swap(entries, before);
    count = 0;
    for (const ColdKey& entry : before)
        if (used(entry)) insert(entry);
}

size_t ColdKeys::memory_bytes() const {
    size_t bytes = segments_.capacity() * sizeof(Segment);
    for (const Segment& segment : segments_) bytes += segment.entries.capacity() * sizeof(ColdKey);
    return bytes;
}

void ColdKeys::prefetch(uint64_t key) const {
    const uint64_t hash = hash_of(key);
    const Segment& segment = segments_[segment_of(hash)];
    __builtin_prefetch(segment.entries.data() + segment.home_of(hash));
}

const ColdKey* ColdKeys::find(uint64_t key) const {
    if (size_ == 0) return nullptr;
    const uint64_t hash = hash_of(key);
    const Segment& segment = segments_[segment_of(hash)];
    const size_t at = segment.find(key, hash);
    return at == segment.entries.size() ? nullptr : &segment.entries[at];
}

void ColdKeys::contains(std::span<const uint64_t> keys, uint8_t* found) const {
    for (size_t i = 0; i < keys.size(); ++i) {
        if (size_ != 0 && i + kPrefetchDistance < keys.size()) prefetch(keys[i + kPrefetchDistance]);
        found[i] = find(keys[i]) != nullptr;
    }
}

void ColdKeys::insert(const ColdKey& added) {
    segments_.resize(kSegments);
    segments_[segment_of(hash_of(added.key))].insert(added);
    ++size_;
}

void ColdKeys::insert(std::span<const ColdKey> added) {
    segments_.resize(kSegments);
    for (size_t i = 0; i < added.size(); ++i) {
        if (i + kPrefetchDistance < added.size()) prefetch(added[i + kPrefetchDistance].key);
        insert(added[i]);
    }
}

void ColdKeys::reserve(size_t keys) {
    segments_.resize(kSegments);
    const size_t entries = keys / kSegments + keys / kSegments / 6;  // of which at most nine tenths will be used
    for (Segment& segment : segments_)
        if (entries > segment.entries.size()) segment.grow(entries);
}

void ColdKeys::erase(uint64_t key) {
    if (size_ == 0) return;
    const uint64_t hash = hash_of(key);
    Segment& segment = segments_[segment_of(hash)];
    size_t at = segment.find(key, hash);
    if (at == segment.entries.size()) return;
    for (size_t after = segment.next(at); used(segment.entries[after]) && segment.displacement(after) > 0;
         at = after, after = segment.next(after))
        segment.entries[at] = segment.entries[after];
    segment.entries[at] = kFree;
    --segment.count;
    --size_;
}

}  // namespace springtide
