// What the scans of all levels share: comparing the products of a register of items with a threshold, and writing what
// survives. For simd/kernels/ only, like lanes.h.
#pragma once

#include "simd/kernels/lanes.h"
#include "simd/kernels/recall/scan.h"

namespace springtide {
namespace {

// Bit i is set if a[i] >= b[i].
inline uint32_t at_least(Floats a, Floats b) {
#if defined(__AVX512F__)
    return __builtin_ia32_cmpps512_mask(a, b, 13 /* ordered >= */, 0xFFFF, 4 /* current rounding */);
#elif defined(__AVX2__)
    return static_cast<uint32_t>(__builtin_ia32_movmskps256(reinterpret_cast<Floats>(a >= b)));
#elif defined(__SSE2__)
    return static_cast<uint32_t>(__builtin_ia32_movmskps(reinterpret_cast<Floats>(a >= b)));
#else
    const Ints greater = a >= b;
    uint32_t mask = 0;
    for (size_t i = 0; i < kLanes; ++i) mask |= static_cast<uint32_t>(greater[i] & 1) << i;
    return mask;
#endif
}

inline uint32_t reaching(Ints products, int32_t slack, Floats scales, float threshold) {
    return at_least(to_floats(products + ints(slack)) * scales, floats(threshold));
}

// Appends the items of `mask` that are allowed. `first` is the item of the lowest lane in its block.
inline void append(uint32_t mask, uint32_t number, size_t first, Ints products, Floats scales,
                   const ScanBlocks& blocks, ScanQuery& query) {
    mask &= static_cast<uint32_t>(query.allowed[number]) >> first;
    if (mask == 0) return;
    int32_t product[kLanes];
    float scale[kLanes];
    store(product, products);
    store(scale, scales);
    Survivor* end = query.end;
    for (; mask != 0; mask &= mask - 1) {
        const auto lane = static_cast<size_t>(__builtin_ctz(mask));
        const auto slot = static_cast<uint32_t>(number * kBlockItems + first + lane);
        __builtin_prefetch(blocks.rows + slot * blocks.row_bytes);
        __builtin_prefetch(blocks.rows + slot * blocks.row_bytes + 64);  // rows are not aligned to cache lines
        *end++ = {slot, product[lane], scale[lane]};
    }
    query.end = end;
}

inline const uint8_t* scales_of(const uint8_t* block, size_t groups) { return block + groups * 4 * kBlockItems; }

}  // namespace
}  // namespace springtide
