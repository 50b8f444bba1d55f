#include "recall/scan/top_items.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace springtide {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Keeps the first k of the order, of which there are more.
template <class Items, class Order>
void keep_first(Items& items, size_t k, Order order) {
    std::nth_element(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(k - 1), items.end(), order);
    items.resize(k);
}

}  // namespace

TopItems::TopItems(QueryBatch& batch, size_t q, size_t k, std::span<const uint64_t> excluded)
    : batch_(batch), q_(q), k_(k), excluded_(excluded) {}

void TopItems::start(float least) {
    least_ = least;
    best_.clear();
    batch_.query(q_).threshold = batch_.threshold(q_, least);
}

void TopItems::add(const ItemSegment& segment, std::span<const Survivor> survivors) {
    constexpr size_t kMost = SegmentShape::kSlots;
    const int8_t* rows[kMost];
    int32_t products[kMost];
    const VectorCodeKernels& kernels = simd::at_level([](auto level) -> auto& { return vector_code_kernels(level); });
    for (size_t i = 0; i < survivors.size(); ++i) rows[i] = segment.lower(survivors[i].slot);
    kernels.products(rows, survivors.size(), batch_.words(q_), batch_.width(), products);
    for (size_t i = 0; i < survivors.size(); ++i) {
        const uint64_t id = segment.id(survivors[i].slot);
        if (std::binary_search(excluded_.begin(), excluded_.end(), id)) continue;
        const double product = 256.0 * survivors[i].product + products[i];
        best_.push_back({batch_.score(q_, product, survivors[i].scale), id});
    }
    survivors_ += survivors.size();
    if (best_.size() > 4 * k_) keep_best();
}

void TopItems::keep_best() {
    keep_first(best_, k_, std::less<>());
    batch_.query(q_).threshold = batch_.threshold(q_, best_.back().score);
}

bool TopItems::finish() {
    if (finished_) return true;
    if (best_.size() > k_) keep_best();
    const auto reaches = [&](const ScoredItem& item) { return item.score >= least_; };
    finished_ = least_ == -kInfinity || (best_.size() == k_ && std::all_of(best_.begin(), best_.end(), reaches));
    if (finished_) batch_.query(q_).threshold = kInfinity;
    return finished_;
}

std::vector<ScoredItem> TopItems::sorted() {
    std::sort(best_.begin(), best_.end());
    return std::move(best_);
}

SampledScores::SampledScores(QueryBatch& batch, size_t q, size_t kept) : batch_(batch), q_(q), kept_(kept) {
    batch_.query(q_).threshold = -kInfinity;
}

void SampledScores::add(const ItemSegment&, std::span<const Survivor> survivors) {
    for (const Survivor& each : survivors) scores_.push_back(batch_.score(q_, 256.0 * each.product, each.scale));
    if (scores_.size() > 4 * kept_) keep_largest();
}

void SampledScores::keep_largest() {
    keep_first(scores_, kept_, std::greater<>());
    batch_.query(q_).threshold = batch_.threshold(q_, scores_.back());
}

float SampledScores::quantile(size_t rank) {
    if (rank > std::min(kept_, scores_.size())) return -kInfinity;
    const auto at = scores_.begin() + static_cast<std::ptrdiff_t>(rank - 1);
    std::nth_element(scores_.begin(), at, scores_.end(), std::greater<>());
    return *at;
}

}  // namespace springtide
