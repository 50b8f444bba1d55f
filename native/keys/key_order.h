// The permutation that sorts keys, by radix sort.
//
// Pure function, thread-safe. Linear in the keys: up to six passes over (key, index); a digit that is the same in all
// keys costs no pass.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace springtide {

// order[0] is the index of the smallest key, and so on; equal keys keep their order. At most 2^32 - 1 keys.
std::vector<uint32_t> ascending(std::span<const uint64_t> keys);

}  // namespace springtide
