#include "simd/kernels/recall/vector_codes.h"

#include "simd/kernels/lanes.h"

namespace springtide {
namespace {

using Codes = int8_t __attribute__((vector_size(kLanes)));

inline Floats magnitude(Floats values) { return as_floats(as_ints(values) & 0x7FFFFFFF); }

// The integer nearest to a value far below 2^22, ties to even: the addition leaves it in the low bits of the fraction.
inline Ints nearest(Floats values) { return as_ints(values + floats(0x1.8p23f)) - as_ints(floats(0x1.8p23f)); }

bool codable(const float* vector, size_t width) {
    Ints good = ints(-1);
    for (size_t i = 0; i < width; i += kLanes) good &= magnitude(load<Floats>(vector + i)) <= floats(kMaxComponent);
    bool all = true;
    for (size_t i = 0; i < kLanes; ++i) all &= good[i] != 0;
    return all;
}

float largest_of(const float* vector, size_t width) {
    Floats lanes = {};
    for (size_t i = 0; i < width; i += kLanes) lanes = max_of(magnitude(load<Floats>(vector + i)), lanes);
    float largest = 0;
    for (size_t i = 0; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
    return largest;
}

inline int32_t sum_of(Ints lanes) {
    int32_t sum = 0;
    for (size_t i = 0; i < kLanes; ++i) sum += lanes[i];
    return sum;
}

CodedVector encode(const float* vector, size_t width, int8_t* upper, int8_t* lower) {
    const float largest = largest_of(vector, width);
    const bool zero = largest < kLeastMaximum;
    const Floats inverse = floats(zero ? 0 : kLargestCode / largest);
    Ints upper_squares = {}, lower_squares = {};
    for (size_t i = 0; i < width; i += kLanes) {
        const Ints code = nearest(load<Floats>(vector + i) * inverse);
        const Ints rounded = (code + 128) >> 8, rest = code - rounded * 256;
        upper_squares += rounded * rounded;
        lower_squares += rest * rest;
        store(upper + i, __builtin_convertvector(rounded, Codes));
        store(lower + i, __builtin_convertvector(rest, Codes));
    }
    return {zero ? 0 : largest / kLargestCode, sum_of(upper_squares), sum_of(lower_squares)};
}

void products(const int8_t* const* rows, size_t n, const int16_t* words, size_t width, int32_t* out) {
    constexpr size_t kAhead = 16;  // rows between prefetch and use
    for (size_t i = 0; i < n; ++i) {
        if (i + kAhead < n) __builtin_prefetch(rows[i + kAhead]);
        int32_t sum = 0;
        for (size_t d = 0; d < width; ++d) sum += static_cast<int16_t>(rows[i][d]) * words[d];
        out[i] = sum;
    }
}

constexpr VectorCodeKernels kKernels = {codable, encode, products};

}  // namespace

const VectorCodeKernels& vector_code_kernels(simd::ThisLevel) { return kKernels; }

}  // namespace springtide
