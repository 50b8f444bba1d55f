// A dot product whose order of additions is part of its meaning: eight running sums, then a fixed tree.
//
// The same bytes on every machine and with every register width, which a compiler's own vectorised reduction would not
// give. Pure function, safe from any thread.
#pragma once

#include <cstddef>

namespace freshet {

// Sum of a[i] * b[i], i < n, in float.
inline float dot(const float* a, const float* b, size_t n) {
    constexpr size_t kLanes = 8;
    float sums[kLanes] = {};
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
        for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
    for (; i < n; ++i) sums[i % kLanes] += a[i] * b[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

}  // namespace freshet
