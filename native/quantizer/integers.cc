#include "quantizer/integers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "quantizer/row_scale.h"

namespace springtide {
namespace {

constexpr float limit_of(unsigned bits) { return bits == 16 ? 32767 : 127; }

constexpr float kFourBits = 7;

bool fits(float most, unsigned bits, int exponent) { return most <= limit_of(bits) * power_of_two(exponent); }

// The least exponent at which all mantissas fit.
int fitting_exponent(float most, unsigned bits) {
    const int exponent = std::clamp(log2_of(most) - (bits == 16 ? 14 : 6), kMinExponent, kMaxExponent);
    return exponent + (exponent < kMaxExponent && !fits(most, bits, exponent));
}

// The exponent for a step relative to the root mean square: between 2^-2.9 and 2^-1.9 of it at 4 bits, with the mean
// squared error of 16 fitted levels on normal rows; 2^-8 times that at 16 bits.
int relative_exponent(const float* row, size_t dim, unsigned bits) {
    return (log2_of(1.2 * mean_square(row, dim)) >> 1) - (bits == 16 ? 10 : 2);
}

int exponent_of(const float* row, size_t dim, unsigned bits, float most) {
    if (most == 0) return 0;
    const int fitting = fitting_exponent(most, bits);
    if (bits == 8) return fitting;
    return std::clamp(relative_exponent(row, dim, bits), fitting, kMaxExponent);
}

template <class Mantissa>
void write(const float* row, size_t dim, unsigned bits, float inverse, uint8_t* out) {
    constexpr float kRounding = 0x1.8p23f;  // a float this large has no fraction: the addition rounds to even
    const float limit = limit_of(bits);
    for (size_t i = 0; i < dim; ++i) {
        const float clamped = std::max(std::min(row[i] * inverse, limit), -limit);
        const auto mantissa =
            static_cast<Mantissa>(std::bit_cast<int32_t>(clamped + kRounding) - std::bit_cast<int32_t>(kRounding));
        std::memcpy(out + i * sizeof(Mantissa), &mantissa, sizeof(Mantissa));
    }
}

template <class Mantissa>
void read(const uint8_t* in, size_t dim, float step, float* row) {
    for (size_t i = 0; i < dim; ++i) {
        Mantissa mantissa;
        std::memcpy(&mantissa, in + i * sizeof(Mantissa), sizeof(Mantissa));
        row[i] = static_cast<float>(mantissa) * step;
    }
}

template <class Mantissa, class Combine>
void combine(const uint8_t* base, size_t dim, uint8_t* out, Combine combined) {
    for (size_t i = 0; i < dim; ++i) {
        Mantissa one, other;
        std::memcpy(&one, out + i * sizeof(Mantissa), sizeof(Mantissa));
        std::memcpy(&other, base + i * sizeof(Mantissa), sizeof(Mantissa));
        one = static_cast<Mantissa>(combined(one, other));
        std::memcpy(out + i * sizeof(Mantissa), &one, sizeof(Mantissa));
    }
}

template <class Combine>
void combine_payloads(const uint8_t* base, size_t dim, unsigned bits, uint8_t* payload, Combine combined) {
    if (bits == 16) combine<uint16_t>(base + 1, dim, payload + 1, combined);
    else combine<uint8_t>(base + 1, dim, payload + 1, combined);
}

}  // namespace

int exponent_of(const float* row, size_t dim, unsigned bits) {
    return exponent_of(row, dim, bits, greatest(row, dim));
}

IntegerGrid grid_near(const float* row, size_t dim, int exponent, IntegerGrid served) {
    const float most = greatest(row, dim);
    const int wanted = std::max(std::clamp(exponent, kMinExponent, kMaxExponent), fitting_exponent(most, 16));
    const bool kept = served.bits != 0 && is_integer_precision(served.bits) &&
                      std::abs(served.exponent - wanted) <= 1 && fits(most, 16, served.exponent);
    const int chosen = kept ? served.exponent : wanted;
    const float mantissa = most * power_of_two(-chosen);
    const unsigned least = mantissa <= kFourBits ? 4 : mantissa <= limit_of(8) ? 8 : 16;
    return {kept ? std::max(least, served.bits) : least, chosen};
}

void write_integers(const float* row, size_t dim, unsigned bits, int exponent, uint8_t* payload) {
    const auto stored = static_cast<int8_t>(exponent);
    std::memcpy(payload, &stored, 1);
    const float inverse = power_of_two(-exponent);
    if (bits == 16) write<int16_t>(row, dim, bits, inverse, payload + 1);
    else write<int8_t>(row, dim, bits, inverse, payload + 1);
}

void read_integers(const uint8_t* payload, size_t dim, unsigned bits, float* row) {
    const float step = power_of_two(static_cast<int8_t>(payload[0]));
    if (bits == 16) read<int16_t>(payload + 1, dim, step, row);
    else read<int8_t>(payload + 1, dim, step, row);
}

void subtract_integers(const uint8_t* base, size_t dim, unsigned bits, uint8_t* payload) {
    payload[0] = 0;
    combine_payloads(base, dim, bits, payload, [](unsigned one, unsigned other) { return one - other; });
}

void add_integers(const uint8_t* base, size_t dim, unsigned bits, uint8_t* payload) {
    payload[0] = base[0];
    combine_payloads(base, dim, bits, payload, [](unsigned one, unsigned other) { return one + other; });
}

}  // namespace springtide
