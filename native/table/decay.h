// Exponential decay by log time, the same bits on every machine. Pure function.
#pragma once

#include <bit>
#include <cstdint>

namespace springtide {

// 2^-x for x >= 0 with an error of at most 2e-10, exact for integral x: exponent bits for the nearest integer, the
// series of exp for the rest, even and odd terms separately. The library's exp2 differs between versions and
// processors.
inline double half_to_the(double x) {
    if (!(x < 1000)) return 0.0;
    const auto nearest = static_cast<int64_t>(x + 0.5);
    const double y = (static_cast<double>(nearest) - x) * 0.6931471805599453, y2 = y * y;
    const double even = 1 + y2 * (1.0 / 2 + y2 * (1.0 / 24 + y2 * (1.0 / 720 + y2 * (1.0 / 40320))));
    const double odd = 1 + y2 * (1.0 / 6 + y2 * (1.0 / 120 + y2 * (1.0 / 5040)));
    return (even + y * odd) * std::bit_cast<double>(static_cast<uint64_t>(1023 - nearest) << 52);
}

}  // namespace springtide
