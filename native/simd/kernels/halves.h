// quantizer/half.h for a register of values at once, bit-identical, and rounding up and down. For simd/kernels/ only.
#pragma once

#include "simd/kernels/lanes.h"

namespace springtide {
namespace {

// The value of the half in the low 16 bits of each lane of an Ints, or of one int32_t; exact.
template <class Integer>
inline auto from_half(Integer half) {
    const Integer magnitude = half & 0x7FFF, sign = (half & 0x8000) << 16;
    const Integer bias = magnitude < 0x7C00 ? Integer{} + 0x38000000 : Integer{} + 0x70000000;
    const Integer subnormal = as_ints(to_floats(magnitude) * 0x1p-24f);
    return as_floats(sign | (magnitude >= 0x0400 ? (magnitude << 13) + bias : subnormal));
}

// The nearest half, ties to even, saturated at +-65504. Values must be finite.
inline Ints to_half(Floats value) {
    const Ints bits = as_ints(value), magnitude = bits & 0x7FFFFFFF, sign = (bits >> 16) & 0x8000;
    const Ints normal = (magnitude - 0x38000000 + 0x0FFF + ((magnitude >> 13) & 1)) >> 13;
    const Ints subnormal = as_ints(as_floats(magnitude) + 0.5f) - 0x3F000000;
    const Ints half = magnitude >= 0x38800000 ? normal : subnormal;
    return sign | (magnitude >= 0x477FF000 ? ints(0x7BFF) : half);
}

// The greatest half not above the value, at least -65504.
inline Ints to_half_down(Floats value) {
    const Ints half = to_half(value), magnitude = half & 0x7FFF;
    // The next half below: away from zero if negative, towards zero if positive, from +-0 to the smallest negative one.
    const Ints above_negative = magnitude < 0x7BFF ? half + 1 : half;
    const Ints stepped = (half & 0x8000) != 0 ? above_negative : half - 1;
    const Ints below = magnitude == 0 ? ints(0x8001) : stepped;
    return from_half(half) <= value ? half : below;
}

// The least half not below the value, at most 65504.
inline Ints to_half_up(Floats value) { return to_half_down(-value) ^ 0x8000; }

}  // namespace
}  // namespace springtide
