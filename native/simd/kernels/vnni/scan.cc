// Products of bytes in fours (vpdpbusd): a quarter of the instructions. The pass multiplies by the upper bytes of a
// query alone, with a slack for the lower ones; a register of items of which any may survive is multiplied by the lower
// bytes too, while it is in the cache.
#include "simd/kernels/recall/scan.h"

#include "simd/kernels/recall/survive.h"

namespace springtide {
namespace {

// `sums` plus, for each item, the sum of four of its shifted codes times four bytes of a query.
inline Ints add_products(Ints sums, const uint8_t* codes, const int8_t* bytes) {
    int32_t four;
    std::memcpy(&four, bytes, sizeof(four));
    return __builtin_ia32_vpdpbusd_v16si(sums, load<Ints>(codes), ints(four));
}

// Codes are stored with 128 added, which the sum of the query's bytes takes back.
inline Ints unshifted(int32_t sum) { return ints(-128 * sum); }

// The second look at a block of which `scores`, products with the upper bytes plus slack, may survive.
[[gnu::noinline]] void rescan(const uint8_t* block, uint32_t number, Ints scores, const ScanBlocks& blocks,
                              const ScanBatch& batch, size_t q) {
    const size_t groups = blocks.groups;
    ScanQuery& query = batch.queries[q];
    Ints lower[4] = {unshifted(query.lower_sum)};  // groups is a multiple of four
    for (size_t group = 0; group < groups; group += 4)
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; ++i)
            lower[i] = add_products(lower[i], block + (group + i) * 4 * kBlockItems,
                                    batch.lower + 4 * ((group + i) * batch.count + q));
    const Ints sum = (lower[0] + lower[1]) + (lower[2] + lower[3]);
    const Ints products = (scores - ints(query.upper_slack)) * 256 + sum;
    const Floats scales = load<Floats>(scales_of(block, groups));
    append(reaching(products, query.slack, scales, query.threshold), number, 0, products, scales, blocks, query);
}

// `count` queries with the `width` blocks from `first` on: count * width accumulators. Those `ahead` of them are brought
// into the cache meanwhile.
template <size_t count, size_t width, size_t ahead>
void scan_tile(const ScanBlocks& all, size_t first, const ScanBatch& batch) {
    static_assert(ahead <= kBlocksAhead);
    const uint8_t *const *blocks = all.blocks + first, *const *later = blocks + ahead;
    const size_t groups = all.groups;
    Ints scores[count][width];
#pragma GCC unroll 8
    for (size_t q = 0; q < count; ++q)
#pragma GCC unroll 4
        for (size_t b = 0; b < width; ++b)
            scores[q][b] = unshifted(batch.queries[q].upper_sum) + ints(batch.queries[q].upper_slack);
    const int8_t* upper = batch.upper;
    for (size_t at = 0; at < groups * 4 * kBlockItems; at += 4 * kBlockItems, upper += 4 * count) {
#pragma GCC unroll 4
        for (size_t b = 0; b < width; ++b) __builtin_prefetch(later[b] + at);
#pragma GCC unroll 8
        for (size_t q = 0; q < count; ++q)
#pragma GCC unroll 4
            for (size_t b = 0; b < width; ++b)
                scores[q][b] = add_products(scores[q][b], blocks[b] + at, upper + 4 * q);
    }
#pragma GCC unroll 4
    for (size_t b = 0; b < width; ++b) {
        __builtin_prefetch(scales_of(later[b], groups));
        const Floats scales = load<Floats>(scales_of(blocks[b], groups));
#pragma GCC unroll 8
        for (size_t q = 0; q < count; ++q)
            if (reaching(scores[q][b], 0, scales, batch.queries[q].threshold * 0x1p-8f) != 0)
                rescan(blocks[b], all.numbers[first + b], scores[q][b], all, batch, q);
    }
}

// One query with one block after the other, so that memory is read in order: four accumulators, as in rescan().
void scan_in_order(const ScanBlocks& all, const ScanBatch& batch) {
    const size_t groups = all.groups;
    const ScanQuery& query = batch.queries[0];
    const Ints start = unshifted(query.upper_sum) + ints(query.upper_slack);
    for (size_t i = 0; i < all.count; ++i) {
        const uint8_t *const block = all.blocks[i], *const later = all.blocks[i + kBlocksAhead];
        Ints sums[4] = {start};
        for (size_t group = 0; group < groups; group += 4)
#pragma GCC unroll 4
            for (size_t j = 0; j < 4; ++j) {
                __builtin_prefetch(later + (group + j) * 4 * kBlockItems);
                sums[j] = add_products(sums[j], block + (group + j) * 4 * kBlockItems, batch.upper + 4 * (group + j));
            }
        const Ints scores = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        __builtin_prefetch(scales_of(later, groups));
        if (reaching(scores, 0, load<Floats>(scales_of(block, groups)), query.threshold * 0x1p-8f) != 0)
            rescan(block, all.numbers[i], scores, all, batch, 0);
    }
}

template <size_t count>
void scan_blocks(const ScanBlocks& blocks, const ScanBatch& batch) {
    constexpr size_t kWidth = count == 8 ? 2 : 4;
    size_t i = 0;
    for (; i + kWidth <= blocks.count; i += kWidth) scan_tile<count, kWidth, kBlocksAhead>(blocks, i, batch);
    for (; i < blocks.count; ++i) scan_tile<count, 1, 1>(blocks, i, batch);
}

void scan(const ScanBlocks& blocks, const ScanBatch& batch) {
    switch (batch.count) {
        case 1: return scan_in_order(blocks, batch);
        case 2: return scan_blocks<2>(blocks, batch);
        case 4: return scan_blocks<4>(blocks, batch);
        default: return scan_blocks<8>(blocks, batch);
    }
}

constexpr ScanKernels kKernels = {scan};

}  // namespace

const ScanKernels& scan_kernels(simd::ThisLevel) { return kKernels; }

}  // namespace springtide
