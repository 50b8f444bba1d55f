// native/half.h for a register of values at once, bit for bit the same. For native/kernels only.
#pragma once

#include "simd/kernels/lanes.h"

namespace springtide {
namespace {

// The values of halves in the low 16 bits of each lane, or of the one half there is; exact.
template <class Whole>
inline auto from_half(Whole half) {
    const Whole magnitude = half & 0x7FFF, sign = (half & 0x8000) << 16;
    const Whole bias = magnitude < 0x7C00 ? Whole{} + 0x38000000 : Whole{} + 0x70000000;
    const Whole subnormal = as_ints(to_floats(magnitude) * 0x1p-24f);
    return as_floats(sign | (magnitude >= 0x0400 ? (magnitude << 13) + bias : subnormal));
}

// The nearest halves, ties to even, saturated beyond +-65504. Wants finite values.
inline Ints to_half(Floats value) {
    const Ints bits = as_ints(value), magnitude = bits & 0x7FFFFFFF, sign = (bits >> 16) & 0x8000;
    const Ints normal = (magnitude - 0x38000000 + 0x0FFF + ((magnitude >> 13) & 1)) >> 13;
    const Ints subnormal = as_ints(as_floats(magnitude) + 0.5f) - 0x3F000000;
    const Ints half = magnitude >= 0x38800000 ? normal : subnormal;
    return sign | (magnitude >= 0x477FF000 ? ints(0x7BFF) : half);
}

// The greatest halves not above the values, or -65504 below that.
inline Ints to_half_down(Floats value) {
    const Ints half = to_half(value), magnitude = half & 0x7FFF;
    // One step down: away from zero where negative, towards it where positive, from either zero to the least negative.
    const Ints above_negative = magnitude < 0x7BFF ? half + 1 : half;
    const Ints stepped = (half & 0x8000) != 0 ? above_negative : half - 1;
    const Ints below = magnitude == 0 ? ints(0x8001) : stepped;
    return from_half(half) <= value ? half : below;
}

// The least halves not below the values, or 65504 above that.
inline Ints to_half_up(Floats value) { return to_half_down(-value) ^ 0x8000; }

}  // namespace
}  // namespace springtide
