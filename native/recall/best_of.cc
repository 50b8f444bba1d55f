#include "recall/best_of.h"

#include <algorithm>
#include <numeric>

namespace springtide {

std::vector<uint32_t> best_of(std::span<const float> scores, std::span<const uint64_t> ids, size_t k) {
    std::vector<uint32_t> found(scores.size());
    std::iota(found.begin(), found.end(), 0u);
    const auto before = [&](uint32_t a, uint32_t b) {
        return scores[a] > scores[b] || (scores[a] == scores[b] && ids[a] < ids[b]);
    };
    if (k < found.size()) {
        std::nth_element(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(k), found.end(), before);
        found.resize(k);
    }
    std::sort(found.begin(), found.end(), before);
    return found;
}

}  // namespace springtide
