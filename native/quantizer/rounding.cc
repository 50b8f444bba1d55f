#include "quantizer/rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "quantizer/integers.h"
#include "quantizer/row_scale.h"

namespace springtide {
namespace {

constexpr float kMostInteger = 127;

// The exponent of the power of two nearest to a positive scale: 2^e up to 1.5 * 2^e.
int nearest_exponent(double scale) { return log2_of(scale * 4 / 3); }

double mean_magnitude(const float* row, size_t dim) {
    return sum_in_order(dim, [row](size_t i) { return std::abs(static_cast<double>(row[i])); }) /
           static_cast<double>(dim);
}

// The mean magnitude of the weights above 0.7 times `mean`, the mean magnitude of all; the largest is one of them.
double ternary_scale(const float* row, size_t dim, double mean) {
    const double threshold = 0.7 * mean;
    size_t above = 0;
    for (size_t i = 0; i < dim; ++i) above += std::abs(static_cast<double>(row[i])) > threshold;
    const double sum = sum_in_order(dim, [=](size_t i) {
        const double magnitude = std::abs(static_cast<double>(row[i]));
        return magnitude > threshold ? magnitude : 0;
    });
    return sum / static_cast<double>(above);
}

// The exponent of a row that is not all zeros, by the scale of its rounding.
int scaled_exponent(const float* row, size_t dim, Rounding rounding) {
    if (rounding == Rounding::two_bits) return log2_of(2 * mean_square(row, dim)) >> 1;
    const double mean = mean_magnitude(row, dim);
    return nearest_exponent(rounding == Rounding::ternary ? ternary_scale(row, dim, mean) : mean);
}

int rounded_exponent(const float* row, size_t dim, Rounding rounding) {
    if (rounding == Rounding::eight_bits) return exponent_of(row, dim, 8);
    if (rounding == Rounding::four_bits) return exponent_of(row, dim, 4);
    if (greatest(row, dim) == 0) return 0;
    return std::clamp(scaled_exponent(row, dim, rounding), kMinExponent, kMaxExponent);
}

}  // namespace

RowGrid grid_of(const float* row, size_t dim, Rounding rounding) {
    if (rounding == Rounding::none) return {};
    const int exponent = rounded_exponent(row, dim, rounding);
    const bool sign = rounding == Rounding::one_bit;
    const float limit = sign || rounding == Rounding::ternary ? 1 : kMostInteger;
    // So large that every weight but 0 becomes -1 or 1.
    const float inverse = power_of_two(sign ? -kMinExponent : -exponent);
    return {power_of_two(exponent), inverse, limit};
}

void write_rounded(const float* row, size_t dim, Rounding rounding, uint8_t* payload) {
    const RowGrid grid = grid_of(row, dim, rounding);
    const auto exponent = static_cast<int>(std::bit_cast<uint32_t>(grid.step) >> 23) - 127;
    *payload = static_cast<uint8_t>(static_cast<int8_t>(exponent));
    for (size_t i = 0; i < dim; ++i)
        payload[1 + i] = static_cast<uint8_t>(static_cast<int8_t>(grid.integer_of(row[i])));
}

}  // namespace springtide
