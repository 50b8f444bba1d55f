// How large a row's weights are, and powers of two: what steps of integers are chosen by. The same bits on any machine:
// sums are in double, which holds the square of any float, in a fixed order. Pure functions, linear in dim.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace springtide {

inline constexpr int kMinExponent = -126, kMaxExponent = 112;  // 2^exponent is normal, 32767 * 2^exponent is finite

inline float power_of_two(int exponent) {
    if (exponent < kMinExponent) return std::ldexp(1.0f, exponent);  // in no payload that was written here
    return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23);
}

// floor(log2(value)) of a positive value.
inline int log2_of(double value) { return static_cast<int>(std::bit_cast<uint64_t>(value) >> 52) - 1023; }

inline float greatest(const float* row, size_t dim) {
    float most = 0;
    for (size_t i = 0; i < dim; ++i) most = std::max(most, std::abs(row[i]));
    return most;
}

// The sum of value(i) for i < dim.
template <class Value>
inline double sum_in_order(size_t dim, Value value) {
    double sums[4] = {};
    for (size_t i = 0; i < dim; ++i) sums[i % 4] += value(i);
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

inline double mean_square(const float* row, size_t dim) {
    return sum_in_order(dim, [row](size_t i) { return static_cast<double>(row[i]) * row[i]; }) /
           static_cast<double>(dim);
}

}  // namespace springtide
