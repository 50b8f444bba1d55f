// Products of 16-bit words in pairs (pmaddwd), which every level has. A tile is one register of items with up to eight
// queries; its accumulators hold two partial sums per item.
#include "simd/kernels/recall/scan.h"

#include "simd/kernels/recall/survive.h"

namespace springtide {
namespace {

using Words = int16_t __attribute__((vector_size(4 * kLanes)));
using Longs = int64_t __attribute__((vector_size(4 * kLanes)));
using Codes = int8_t __attribute__((vector_size(2 * kLanes)));

// The most queries whose accumulators, two each, fit into the registers.
constexpr size_t kTileQueries = kLanes == 16 ? 8 : kLanes == 8 ? 4 : 2;

// Sums of adjacent products.
inline Ints pair_products(Words a, Words b) {
#if defined(__AVX512BW__)
    return reinterpret_cast<Ints>(__builtin_ia32_pmaddwd512_mask(a, b, Ints{}, 0xFFFF));
#elif defined(__AVX2__)
    return reinterpret_cast<Ints>(__builtin_ia32_pmaddwd256(a, b));
#elif defined(__SSE2__)
    return reinterpret_cast<Ints>(__builtin_ia32_pmaddwd128(a, b));
#else
    Ints sums;
    for (size_t i = 0; i < kLanes; ++i) sums[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    return sums;
#endif
}

// The codes of half a register of items: four per item.
inline Words codes_at(const uint8_t* at) {
    const Codes shifted = load<Codes>(at);
    return __builtin_convertvector(shifted ^ static_cast<int8_t>(-128), Words);
}

// Adds adjacent lanes of two registers: a[0] + a[1], a[2] + a[3], ..., b[0] + b[1], ...
inline Ints pair_sums(Ints a, Ints b) {
    Ints even, odd;
    for (int i = 0; i < static_cast<int>(kLanes); ++i) even[i] = 2 * i, odd[i] = 2 * i + 1;
    return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
}

// `count` queries, of `stride` in the batch, with the items of block i from `first` on that fill a register.
template <size_t count, size_t stride>
void scan_tile(const ScanBlocks& blocks, size_t i, size_t first, const int16_t* words, ScanQuery* queries) {
    const uint8_t* const block = blocks.blocks[i];
    const size_t groups = blocks.groups;
    Ints low[count] = {}, high[count] = {};
    const uint8_t* at = block + 4 * first;
    for (size_t group = 0; group < groups; ++group, at += 4 * kBlockItems) {
        const Words low_codes = codes_at(at), high_codes = codes_at(at + 2 * kLanes);
#pragma GCC unroll 8
        for (size_t q = 0; q < count; ++q) {
            int64_t four;
            std::memcpy(&four, words + 4 * (group * stride + q), sizeof(four));
            const Words repeated = reinterpret_cast<Words>(four - Longs{});
            low[q] += pair_products(low_codes, repeated);
            high[q] += pair_products(high_codes, repeated);
        }
    }
    const Floats scales = load<Floats>(scales_of(block, groups) + 4 * first);
#pragma GCC unroll 8
    for (size_t q = 0; q < count; ++q) {
        const Ints products = pair_sums(low[q], high[q]);
        const uint32_t mask = reaching(products, queries[q].slack, scales, queries[q].threshold);
        if (mask != 0) append(mask, blocks.numbers[i], first, products, scales, blocks, queries[q]);
    }
}

template <size_t count>
void scan_blocks(const ScanBlocks& blocks, const ScanBatch& batch) {
    constexpr size_t kTile = count < kTileQueries ? count : kTileQueries;
    for (size_t i = 0; i < blocks.count; ++i)
        for (size_t q = 0; q < count; q += kTile)
            for (size_t first = 0; first < kBlockItems; first += kLanes)
                scan_tile<kTile, count>(blocks, i, first, batch.words + 4 * q, batch.queries + q);
}

void scan(const ScanBlocks& blocks, const ScanBatch& batch) {
    switch (batch.count) {
        case 1: return scan_blocks<1>(blocks, batch);
        case 2: return scan_blocks<2>(blocks, batch);
        case 4: return scan_blocks<4>(blocks, batch);
        default: return scan_blocks<8>(blocks, batch);
    }
}

constexpr ScanKernels kKernels = {scan};

}  // namespace

const ScanKernels& scan_kernels(simd::ThisLevel) { return kKernels; }

}  // namespace springtide
