// A search of all items for up to eight queries at once, exact by score.
//
// 1. A sample of the blocks, one of every `stride`, gives each query a threshold: the (2 * ceil(m) + 1)-th largest
//    score of the sample, of which m = k / stride items are expected among the best k. With m >= 16 about 2.1 k items
//    survive, and fewer than k do with a probability of some 1e-4 (binomial). No more than one block of 32 is sampled;
//    if m is below 16 for that reason, the threshold is seven ranks lower.
// 2. One pass over the blocks multiplies upper codes with all queries. What may reach the threshold is scored exactly
//    while its segment is locked. A query that has gathered 4 k items keeps the best k and raises its threshold.
// 3. If fewer than k items reach the threshold, the pass is repeated with the score of twice the rank, then four times,
//    then without a threshold.
//
// The result is exact whatever the sample is: items are left out only below a bound of their score.
// Cost: a pass reads the blocks once, with 16 * width multiplications per block and query, and a row per survivor.
// Threads: holds the lock of one segment at a time, shared, for some microseconds. An item that is changed meanwhile is
// found as it was at one moment of the search. Failure: std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "recall/item_filter.h"
#include "recall/scan/query_batch.h"
#include "recall/scan/segment_list.h"
#include "recall/scan/top_items.h"

namespace springtide {

// The rule for samples.
struct SampleRule {
    size_t expected = 16;  // m: how many of the best k a sample is to hold
    size_t least_stride = 32;
};

// What one query may find.
struct SearchOptions {
    ItemFilter filter;                     // names attributes of the index only
    std::span<const uint64_t> excluded{};  // ids, ascending
};

struct FoundItems {
    std::vector<ScoredItem> items;  // best first; k, or all that may be found
    size_t survivors = 0;           // items scored exactly
    size_t passes = 0;              // over all blocks
};

// options and the result have an entry for each query of the batch; k >= 1.
std::vector<FoundItems> scan(const SegmentList& segments, QueryBatch& batch, const SearchOptions* options, size_t k,
                             SampleRule rule);

}  // namespace springtide
