#include "batch/unique.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace springtide {
namespace {

constexpr int kMinSlotsLog2 = 10;
constexpr size_t kPrefetchDistance = 16;  // keys; hides a miss of the second-level cache
constexpr size_t kMaxKeys = std::numeric_limits<int32_t>::max();

// Keys are hashes or small integers: folding in the upper half and multiplying by the golden ratio distributes both
// evenly over the upper bits of the product.
size_t home(uint64_t key, int shift) { return ((key ^ (key >> 32)) * 0x9E3779B97F4A7C15) >> shift; }

}  // namespace

Uniquer::Uniquer() : slots_(size_t{1} << kMinSlotsLog2), shift_(64 - kMinSlotsLog2) {}

void Uniquer::next_stamp() {
    if (++stamp_ != 0) return;
    std::fill(slots_.begin(), slots_.end(), Slot{});  // after 2^32 calls old stamps would be valid again
    stamp_ = 1;
}

// `distinct` contains every key at its position, so the old slots are not read.
void Uniquer::grow(const uint64_t* distinct, size_t n) {
    slots_.assign(slots_.size() * 2, Slot{});
    --shift_;
    const size_t mask = slots_.size() - 1;
    for (size_t i = 0; i < n; ++i) {
        size_t at = home(distinct[i], shift_);
        while (slots_[at].stamp == stamp_) at = (at + 1) & mask;
        slots_[at] = {distinct[i], static_cast<int32_t>(i), stamp_};
    }
}

// Processes keys until the table is full; returns the number processed.
size_t Uniquer::insert(std::span<const uint64_t> keys, uint64_t* distinct, int32_t* inverse, uint32_t* counts,
                       size_t& u_out) {
    // Local copies: the compiler must assume that the outputs overlap the members.
    Slot* const slots = slots_.data();
    const size_t capacity = slots_.size() / 2, mask = slots_.size() - 1, last = keys.size() - 1;
    const int shift = shift_;
    const uint32_t stamp = stamp_;
    size_t u = u_out, j = 0;
    for (; j < keys.size() && u < capacity; ++j) {
        __builtin_prefetch(&slots[home(keys[std::min(j + kPrefetchDistance, last)], shift)]);
        const uint64_t key = keys[j];
        size_t at = home(key, shift);
        while ((slots[at].stamp == stamp) & (slots[at].key != key)) at = (at + 1) & mask;
        // Whether a key is new is unpredictable, so outputs are written as if it were new, and only u depends on it.
        const bool is_new = slots[at].stamp != stamp;
        const int32_t position = is_new ? static_cast<int32_t>(u) : slots[at].position;
        slots[at] = {key, position, stamp};
        distinct[u] = key;
        counts[u] = 0;
        ++counts[position];
        inverse[j] = position;
        u += is_new;
    }
    u_out = u;
    return j;
}

size_t Uniquer::unique(std::span<const uint64_t> keys, uint64_t* distinct, int32_t* inverse, uint32_t* counts) {
    if (keys.size() > kMaxKeys)
        throw std::invalid_argument("keys: got " + std::to_string(keys.size()) + ", wanted fewer than 2^31");
    next_stamp();
    size_t u = 0;
    for (size_t done = 0;;) {
        done += insert(keys.subspan(done), distinct, inverse + done, counts, u);
        if (done == keys.size()) return u;
        grow(distinct, u);
    }
}

}  // namespace springtide
