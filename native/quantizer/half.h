// IEEE 754 binary16 in integer arithmetic, with the same bits on every machine. Pure functions.
#pragma once

#include <bit>
#include <cstdint>

namespace springtide {

inline constexpr uint16_t kMaxHalf = 0x7BFF;  // 65504

// The value of a half; exact.
inline float from_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t magnitude = half & 0x7FFF;
    if (magnitude >= 0x0400)  // normal: shift exponent and fraction, change the exponent bias from 15 to 127
        return std::bit_cast<float>(sign | ((magnitude << 13) + (magnitude < 0x7C00 ? 0x38000000u : 0x70000000u)));
    // Subnormal: a multiple of 2^-24, which a float holds as a normal number.
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

// The nearest half, ties to even; saturates at +-65504. The value must be finite.
inline uint16_t to_half(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
    const uint32_t magnitude = bits & 0x7FFFFFFF;
    if (magnitude >= 0x477FF000) return sign | kMaxHalf;  // from 65520 on, rounding would give infinity
    if (magnitude >= 0x38800000) {                         // 2^-14: a normal half
        const uint32_t even = (magnitude >> 13) & 1;
        return static_cast<uint16_t>(sign | ((magnitude - 0x38000000 + 0x0FFF + even) >> 13));
    }
    // Adding 0.5 leaves the multiple of 2^-24 in the low bits of the fraction, rounded to even by the addition.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000));
}

}  // namespace springtide
