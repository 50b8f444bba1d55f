#include "change_set.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "key_order.h"
#include "xxh64.h"

namespace freshet {

Changes finish(const ChangeSet& set) {
    const std::vector<uint32_t> order = ascending(set.keys);
    Changes done;
    done.touched.reserve(order.size());
    done.packed.resize(order.size() * set.row_bytes);
    uint8_t* out = done.packed.data();
    for (const uint32_t i : order) {
        std::memcpy(out, set.packed.data() + i * set.row_bytes, set.row_bytes);
        done.touched.push_back(set.keys[i]);
        done.touched_sum += xxh64(out, set.row_bytes, set.keys[i]);
        out += set.row_bytes;
    }
    std::vector<uint64_t> removed = set.removed;
    std::sort(removed.begin(), removed.end());
    removed.erase(std::unique(removed.begin(), removed.end()), removed.end());
    std::set_difference(removed.begin(), removed.end(), done.touched.begin(), done.touched.end(),
                        std::back_inserter(done.removed));
    done.digest = set.rest_sum + done.touched_sum;
    return done;
}

}  // namespace freshet
