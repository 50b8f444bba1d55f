#include "batch/unique.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace springtide {
namespace {

constexpr int kSmallestLog2 = 10;
constexpr size_t kAhead = 16;  // keys; far enough to hide a miss of the second-level cache
constexpr size_t kMostKeys = std::numeric_limits<int32_t>::max();

// Keys are hashes already, or small integers: folding the upper half in and one multiplication by the golden ratio put
// either kind evenly over the upper bits of the product.
size_t home(uint64_t key, int shift) { return ((key ^ (key >> 32)) * 0x9E3779B97F4A7C15) >> shift; }

}  // namespace

Uniquer::Uniquer() : slots_(size_t{1} << kSmallestLog2), shift_(64 - kSmallestLog2) {}

// Keys are hashes already, or small integers: folding the upper half in and one multiplication by the golden ratio put
// either kind evenly over the upper bits of the product.
void Uniquer::begin_epoch() {
    if (++epoch_ != 0) return;
    std::fill(slots_.begin(), slots_.end(), Slot{});  // after 2^32 calls stamps would come again
    epoch_ = 1;
}

// `distinct` has every key, its place being its position, so the old slots need no walk.
void Uniquer::grow(const uint64_t* distinct, size_t n) {
    slots_.assign(slots_.size() * 2, Slot{});
    --shift_;
    const size_t mask = slots_.size() - 1;
    for (size_t i = 0; i < n; ++i) {
        size_t at = home(distinct[i], shift_);
        while (slots_[at].epoch == epoch_) at = (at + 1) & mask;
        slots_[at] = {distinct[i], static_cast<int32_t>(i), epoch_};
    }
}

// Adds keys while there is room for another distinct one; returns how many it took.
size_t Uniquer::take(std::span<const uint64_t> keys, uint64_t* distinct, int32_t* inverse, uint32_t* counts,
                     size_t& found) {
    // Copies: the compiler must assume that the outputs overlap the members.
    Slot* const slots = slots_.data();
    const size_t room = slots_.size() / 2, mask = slots_.size() - 1, last = keys.size() - 1;
    const int shift = shift_;
    const uint32_t epoch = epoch_;
    size_t u = found, j = 0;
    for (; j < keys.size() && u < room; ++j) {
        __builtin_prefetch(&slots[home(keys[std::min(j + kAhead, last)], shift)]);
        const uint64_t key = keys[j];
        size_t at = home(key, shift);
        while ((slots[at].epoch == epoch) & (slots[at].key != key)) at = (at + 1) & mask;
        // Whether a key is new cannot be predicted, so everything is written as if it were, and only `u` knows.
        const bool fresh = slots[at].epoch != epoch;
        const int32_t place = fresh ? static_cast<int32_t>(u) : slots[at].place;
        slots[at] = {key, place, epoch};
        distinct[u] = key;
        counts[u] = 0;
        ++counts[place];
        inverse[j] = place;
        u += fresh;
    }
    found = u;
    return j;
}

size_t Uniquer::unique(std::span<const uint64_t> keys, uint64_t* distinct, int32_t* inverse, uint32_t* counts) {
    if (keys.size() > kMostKeys)
        throw std::invalid_argument("keys: got " + std::to_string(keys.size()) + ", wanted fewer than 2^31");
    begin_epoch();
    size_t found = 0;
    for (size_t done = 0;;) {
        done += take(keys.subspan(done), distinct, inverse + done, counts, found);
        if (done == keys.size()) return found;
        grow(distinct, found);
    }
}

void Uniquer::unique(std::span<const uint64_t> keys, Unique& result) {
    result.keys.resize(keys.size());
    result.inverse.resize(keys.size());
    result.counts.resize(keys.size());
    const size_t found = unique(keys, result.keys.data(), result.inverse.data(), result.counts.data());
    result.keys.resize(found);
    result.counts.resize(found);
}

}  // namespace springtide
