#include "table/change_set.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "batch/key_order.h"
#include "batch/xxh64.h"

namespace springtide {
namespace {

constexpr size_t kAhead = 16, kLineBytes = 64;

[[gnu::always_inline]] inline void prefetch(const ChangeSet& set, uint32_t i) {
    __builtin_prefetch(&set.keys[i]);
    const std::byte* row = set.packed.data() + i * set.row_bytes;
    for (size_t at = 0; at < set.row_bytes; at += kLineBytes) __builtin_prefetch(row + at);
    __builtin_prefetch(row + set.row_bytes - 1);
}

}  // namespace

Changes finish(const ChangeSet& set) {
    const std::vector<uint32_t> order = ascending(set.keys);
    Changes done;
    done.touched.reserve(order.size());
    done.packed.resize(order.size() * set.row_bytes);
    uint8_t* out = done.packed.data();
    for (size_t at = 0; at < order.size(); ++at, out += set.row_bytes) {
        if (at + kAhead < order.size()) prefetch(set, order[at + kAhead]);
        const uint64_t key = set.keys[order[at]];
        std::memcpy(out, set.packed.data() + order[at] * set.row_bytes, set.row_bytes);
        done.touched.push_back(key);
        done.touched_sum += xxh64(out, set.row_bytes, key);
    }
    std::vector<uint64_t> removed = set.removed;
    std::sort(removed.begin(), removed.end());
    removed.erase(std::unique(removed.begin(), removed.end()), removed.end());
    std::set_difference(removed.begin(), removed.end(), done.touched.begin(), done.touched.end(),
                        std::back_inserter(done.removed));
    done.digest = set.rest_sum + done.touched_sum;
    return done;
}

}  // namespace springtide
