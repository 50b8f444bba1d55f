// The best of some scored items: the highest scores, of equal scores the lowest ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

// The positions of the best k of n items, best first; all if there are fewer. No score is NaN. Cost: n + k log k.
std::vector<uint32_t> best_of(std::span<const float> scores, std::span<const uint64_t> ids, size_t k);

}  // namespace springtide
