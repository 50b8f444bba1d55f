// TopItems: the best items of a scan for one query, by exact score. SampledScores: quantiles of the scores of a sample.
//
// Both read what survived in a segment and raise the threshold of the query once they have enough. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "recall/scan/query_batch.h"

namespace springtide {

struct ScoredItem {
    float score;
    uint64_t id;

    // Before: the higher score; of equal scores the lower id.
    bool operator<(const ScoredItem& other) const {
        return score > other.score || (score == other.score && id < other.id);
    }
};

class TopItems {
public:
    // The best `k`; k >= 1. `excluded`, ascending, are ids that are not to be found.
    TopItems(QueryBatch& batch, size_t q, size_t k, std::span<const uint64_t> excluded);

    // Starts a pass in which items with a score below `least` need not survive.
    void start(float least);

    // Adds what survived of a segment.
    void add(const ItemSegment& segment, std::span<const Survivor> survivors);

    // Ends a pass; returns whether the best k are known. Then nothing survives in further ones.
    bool finish();
    bool finished() const { return finished_; }

    // The items, best first, at most k.
    std::vector<ScoredItem> sorted();

    size_t survivors() const { return survivors_; }

private:
    void keep_best();

    QueryBatch& batch_;
    size_t q_, k_;
    std::span<const uint64_t> excluded_;
    std::vector<ScoredItem> best_;
    float least_ = 0;
    size_t survivors_ = 0;
    bool finished_ = false;
};

class SampledScores {
public:
    // Keeps the `kept` largest scores, those of upper codes alone.
    SampledScores(QueryBatch& batch, size_t q, size_t kept);

    void add(const ItemSegment& segment, std::span<const Survivor> survivors);

    // The rank-th largest score, rank >= 1; minus infinity if fewer are kept.
    float quantile(size_t rank);

private:
    void keep_largest();

    QueryBatch& batch_;
    size_t q_, kept_;
    std::vector<float> scores_;
};

}  // namespace springtide
