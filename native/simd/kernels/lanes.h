// One register of floats or integers per level, and what every kernel does with them. For native/kernels only: all in
// an unnamed namespace, so that each level has its own.
//
// Operators work lane by lane; a comparison gives all ones or zeros per lane, and `mask ? a : b` picks by it.
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

// The same value in every lane; a minus zero stays one.
inline Floats floats(float value) { return value - Floats{}; }
inline Ints ints(int32_t value) { return value - Ints{}; }

// Registers from and to memory of any alignment.
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

// The same bits as floats or as integers, in lanes or alone.
inline Floats as_floats(Ints bits) { return reinterpret_cast<Floats>(bits); }
inline Ints as_ints(Floats lanes) { return reinterpret_cast<Ints>(lanes); }
inline float as_floats(int32_t bits) { return __builtin_bit_cast(float, bits); }
inline int32_t as_ints(float value) { return __builtin_bit_cast(int32_t, value); }

// The lesser and the greater of two, lane by lane; the second where they are equal.
inline Floats least_of(Floats a, Floats b) { return a < b ? a : b; }
inline Floats greatest_of(Floats a, Floats b) { return a > b ? a : b; }

inline Floats to_floats(Ints whole) { return __builtin_convertvector(whole, Floats); }
inline float to_floats(int32_t whole) { return static_cast<float>(whole); }
inline Ints truncated(Floats lanes) { return __builtin_convertvector(lanes, Ints); }

}  // namespace
}  // namespace springtide
