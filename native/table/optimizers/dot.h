// A dot product with a specified order of additions: eight running sums, then a fixed tree.
//
// Gives the same bytes on every machine and with every register width, unlike a reduction vectorised by the compiler.
// Pure function, thread-safe.
#pragma once

#include <cstddef>
#include <cstring>

namespace springtide {

// Four floats, one register of SSE or NEON.
typedef float Float4 __attribute__((vector_size(16)));

inline Float4 load4(const float* at) {
    Float4 values;
    std::memcpy(&values, at, sizeof(values));
    return values;
}

// Sum of a[i] * b[i], i < n, in float.
inline float dot(const float* a, const float* b, size_t n) {
    Float4 low = {}, high = {};  // running sums 0 to 3 and 4 to 7; element i is added to sum i % 8
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        low += load4(a + i) * load4(b + i);
        high += load4(a + i + 4) * load4(b + i + 4);
    }
    for (size_t lane = 0; i < n; ++i, ++lane) (lane < 4 ? low : high)[lane % 4] += a[i] * b[i];
    const Float4 sums = low + high;
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

}  // namespace springtide
