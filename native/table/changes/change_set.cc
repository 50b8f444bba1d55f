#include "table/changes/change_set.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "keys/key_order.h"
#include "keys/xxh64.h"

namespace springtide {
namespace {

constexpr size_t kPrefetchDistance = 16;  // rows
constexpr size_t kLineBytes = 64;

[[gnu::always_inline]] inline void prefetch(const ChangeSet& set, uint32_t i) {
    __builtin_prefetch(&set.keys[i]);
    const std::byte* row = set.packed.data() + i * set.row_bytes;
    for (size_t at = 0; at < set.row_bytes; at += kLineBytes) __builtin_prefetch(row + at);
    __builtin_prefetch(row + set.row_bytes - 1);
}

}  // namespace

Changes finish(const ChangeSet& set) {
    const std::vector<uint32_t> order = ascending(set.keys);
    Changes changes;
    changes.touched.reserve(order.size());
    changes.packed.resize(order.size() * set.row_bytes);
    uint8_t* out = changes.packed.data();
    for (size_t at = 0; at < order.size(); ++at, out += set.row_bytes) {
        if (at + kPrefetchDistance < order.size()) prefetch(set, order[at + kPrefetchDistance]);
        const uint64_t key = set.keys[order[at]];
        std::memcpy(out, set.packed.data() + order[at] * set.row_bytes, set.row_bytes);
        changes.touched.push_back(key);
        changes.touched_sum += xxh64(out, set.row_bytes, key);
    }
    std::vector<uint64_t> removed = set.removed;
    std::sort(removed.begin(), removed.end());
    removed.erase(std::unique(removed.begin(), removed.end()), removed.end());
    std::set_difference(removed.begin(), removed.end(), changes.touched.begin(), changes.touched.end(),
                        std::back_inserter(changes.removed));
    changes.digest = set.rest_sum + changes.touched_sum;
    return changes;
}

}  // namespace springtide
