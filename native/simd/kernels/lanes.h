// Register types of a level and the operations that kernels share. For simd/kernels/ only: everything is in an unnamed
// namespace, so that each level has a separate copy.
//
// Operators work lane by lane; a comparison gives all ones or all zeros per lane, and `mask ? a : b` selects by it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd/simd.h"

namespace springtide {
namespace {

constexpr size_t kLanes = simd::ThisLevel::lanes;

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));
using Halfwords = uint16_t __attribute__((vector_size(2 * kLanes)));
using Bytes = uint8_t __attribute__((vector_size(kLanes)));

// The same value in every lane. Subtracting zero preserves -0.
inline Floats floats(float value) { return value - Floats{}; }
inline Ints ints(int32_t value) { return value - Ints{}; }

// Loads and stores at any alignment.
template <class Register>
inline Register load(const void* at) {
    Register lanes;
    std::memcpy(&lanes, at, sizeof(lanes));
    return lanes;
}
template <class Register>
inline void store(void* at, Register lanes) {
    std::memcpy(at, &lanes, sizeof(lanes));
}

// Reinterprets the bits of a register or of a scalar.
inline Floats as_floats(Ints bits) { return reinterpret_cast<Floats>(bits); }
inline Ints as_ints(Floats lanes) { return reinterpret_cast<Ints>(lanes); }
inline float as_floats(int32_t bits) { return __builtin_bit_cast(float, bits); }
inline int32_t as_ints(float value) { return __builtin_bit_cast(int32_t, value); }

// Minimum and maximum per lane; b if they are equal.
inline Floats min_of(Floats a, Floats b) { return a < b ? a : b; }
inline Floats max_of(Floats a, Floats b) { return a > b ? a : b; }

inline Floats to_floats(Ints values) { return __builtin_convertvector(values, Floats); }
inline float to_floats(int32_t value) { return static_cast<float>(value); }
inline Ints truncated(Floats lanes) { return __builtin_convertvector(lanes, Ints); }

}  // namespace
}  // namespace springtide
