// A dot product whose order of additions is part of its meaning: eight running sums, then a fixed tree.
//
// The same bytes on every machine and with every register width, which a compiler's own vectorised reduction would not
// give. Pure function, safe from any thread.
#pragma once

#include <cstddef>
#include <cstring>

namespace springtide {

// Four floats side by side; GCC and Clang make them one register of SSE or NEON.
typedef float Four __attribute__((vector_size(16)));

inline Four four(const float* at) {
    Four values;
    std::memcpy(&values, at, sizeof(values));
    return values;
}

// Sum of a[i] * b[i], i < n, in float.
inline float dot(const float* a, const float* b, size_t n) {
    Four low = {}, high = {};  // running sums 0 to 3 and 4 to 7; element i goes to sum i % 8
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        low += four(a + i) * four(b + i);
        high += four(a + i + 4) * four(b + i + 4);
    }
    for (size_t lane = 0; i < n; ++i, ++lane) (lane < 4 ? low : high)[lane % 4] += a[i] * b[i];
    const Four sums = low + high;
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

}  // namespace springtide
