// Loops over the weights of a row, specialised for common values of dim so that the compiler unrolls them.
//
// Changes speed only: the computation and its order are the same. Pure functions.
#pragma once

#include <cstddef>
#include <type_traits>

namespace springtide {

// Returns f(dim); a common dim is passed as a compile-time constant.
template <class F>
inline auto with_dim(size_t dim, F f) {
    switch (dim) {
        case 8: return f(std::integral_constant<size_t, 8>());
        case 16: return f(std::integral_constant<size_t, 16>());
        case 32: return f(std::integral_constant<size_t, 32>());
        default: return f(dim);
    }
}

inline constexpr size_t kBlock = 64;

// The sum of f(start, n) over blocks of at most kBlock weights, in order; a row of a common dim is one block.
template <class F>
inline float sum_of_blocks(size_t dim, F f) {
    switch (dim) {
        case 8: return f(0, std::integral_constant<size_t, 8>());
        case 16: return f(0, std::integral_constant<size_t, 16>());
        case 32: return f(0, std::integral_constant<size_t, 32>());
        default: break;
    }
    float sum = 0;
    for (size_t start = 0; start < dim; start += kBlock) sum += f(start, dim - start < kBlock ? dim - start : kBlock);
    return sum;
}

}  // namespace springtide
