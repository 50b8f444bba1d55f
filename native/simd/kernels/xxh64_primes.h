// The constants of XXH64, separate from the inline functions of keys/xxh64.h, which kernels must not include.
#pragma once

#include <cstdint>

namespace springtide::xxh64_constant {

inline constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
inline constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
inline constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
inline constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
inline constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;

}  // namespace springtide::xxh64_constant
