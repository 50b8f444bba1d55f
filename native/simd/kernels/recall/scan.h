// The first pass of a search in recall/scan/scan.h, once per SIMD level: products of blocks of items with a few queries,
// comparison with the threshold of each query, and compaction of what survives.
//
// A block holds kBlockItems items: `groups` groups of four codes of every item (item i at 4 * i), each code stored as
// code + 128, and then one float scale per item. A query has four words per group. The product of item and query is
// sum(code * word), exact in 32 bits for up to 128 groups. `groups` is a multiple of four.
//
// Every item whose product may reach the threshold survives. Levels may differ in how many more do; the products are
// the same.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/simd.h"

namespace springtide {

constexpr size_t kBlockItems = 16;
constexpr size_t kScanQueries = 8;  // queries of one call at most
constexpr size_t kBlocksAhead = 16;

struct Survivor {
    uint32_t slot;  // block number * kBlockItems + item
    int32_t product;
    float scale;
};

// One query of a batch. An item survives if (product + slack) * scale >= threshold and its bit in `allowed` is set.
struct ScanQuery {
    int32_t slack;
    int32_t upper_slack;           // at least (|sum(code * lower)| + slack) / 256 for every item
    int32_t upper_sum, lower_sum;  // of its upper and lower bytes
    float threshold;
    const uint16_t* allowed;  // one word per block number, bit i for item i
    Survivor* end;            // in and out: where the next survivor is written; room for all items of the call
};

// `count` queries, 1, 2, 4 or 8. Their words, 256 * upper + lower, lie side by side: four of the first query, four of
// the second, and so on for each group.
struct ScanBatch {
    const int16_t* words;  // [groups][count][4]
    const int8_t* upper;   // [groups][count][4]
    const int8_t* lower;   // [groups][count][4]
    ScanQuery* queries;
    size_t count;
};

struct ScanBlocks {
    const uint8_t* const* blocks;  // [count + kBlocksAhead], aligned to 64 bytes; those after the count are not scanned,
                                   // but may be brought into the cache
    const uint32_t* numbers;
    size_t count, groups;
    const std::byte* rows;  // rows[slot * row_bytes] is brought into the cache for every survivor
    size_t row_bytes;
};

struct ScanKernels {
    void (*scan)(const ScanBlocks& blocks, const ScanBatch& batch);
};

const ScanKernels& scan_kernels(simd::Portable);
const ScanKernels& scan_kernels(simd::Avx2);
const ScanKernels& scan_kernels(simd::Avx512);
const ScanKernels& scan_kernels(simd::Vnni);

}  // namespace springtide
