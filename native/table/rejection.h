// What a table rejects: messages about a key, and repeated keys.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace springtide {

[[noreturn]] inline void reject(const char* what, uint64_t key, const std::string& got, const char* wanted) {
    throw std::invalid_argument(std::string(what) + " of key " + std::to_string(key) + ": got " + got + ", wanted " +
                                wanted);
}

// The smallest key that occurs twice; null if there is none.
inline const uint64_t* first_duplicate(std::vector<uint64_t>& keys) {
    std::sort(keys.begin(), keys.end());
    const auto at = std::adjacent_find(keys.begin(), keys.end());
    return at == keys.end() ? nullptr : &*at;
}

}  // namespace springtide
