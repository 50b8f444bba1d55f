#include "kernels/quantizer.h"

#include "kernels/halves.h"

namespace freshet {
namespace {

// Two bytes per value, a register at a time; what is left at the end goes through a register of its own.
template <class Convert>
void narrow(const float* values, size_t n, uint8_t* out, Convert convert) {
    const auto one = [&](const float* from) { return __builtin_convertvector(convert(load<Floats>(from)), Halfwords); };
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(out + 2 * i, one(values + i));
    if (i == n) return;
    float rest[kLanes] = {};
    std::memcpy(rest, values + i, (n - i) * sizeof(float));
    const Halfwords last = one(rest);
    std::memcpy(out + 2 * i, &last, 2 * (n - i));
}

template <class Convert>
void widen(const uint8_t* in, size_t n, float* values, Convert convert) {
    const auto one = [&](const void* from) { return convert(__builtin_convertvector(load<Halfwords>(from), Ints)); };
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(values + i, one(in + 2 * i));
    if (i == n) return;
    uint16_t rest[kLanes] = {};
    std::memcpy(rest, in + 2 * i, 2 * (n - i));
    const Floats last = one(rest);
    std::memcpy(values + i, &last, (n - i) * sizeof(float));
}

// A bfloat is the upper half of a float. Nearest, ties to even; what would round to infinity saturates.
Ints to_bfloat(Floats value) {
    const Ints bits = as_ints(value), magnitude = bits & 0x7FFFFFFF, sign = (bits >> 16) & 0x8000;
    const Ints rounded = (magnitude + 0x7FFF + ((magnitude >> 16) & 1)) >> 16;
    return sign | (magnitude >= 0x7F7F8000 ? ints(0x7F7F) : rounded);
}

void to_halves(const float* values, size_t n, uint8_t* out) { narrow(values, n, out, to_half); }
void from_halves(const uint8_t* in, size_t n, float* values) { widen(in, n, values, from_half); }
void to_bfloats(const float* values, size_t n, uint8_t* out) { narrow(values, n, out, to_bfloat); }
void from_bfloats(const uint8_t* in, size_t n, float* values) {
    widen(in, n, values, [](Ints bfloat) { return as_floats(bfloat << 16); });
}

constexpr QuantizerKernels kKernels = {to_halves, from_halves, to_bfloats, from_bfloats};

}  // namespace

const QuantizerKernels& quantizer_kernels(simd::ThisLevel) { return kKernels; }

}  // namespace freshet
