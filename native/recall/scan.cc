#include "recall/scan.h"

#include <algorithm>
#include <shared_mutex>

namespace springtide {
namespace {

constexpr size_t kBlocks = SegmentShape::kBlocks;

// A sample of the blocks, and the rank of the score in it that becomes the threshold.
struct SamplePlan {
    SamplePlan(size_t k, SampleRule rule) : stride(std::max(k / rule.expected, rule.least_stride)) {
        rank = 2 * ((k + stride - 1) / stride) + (k / stride < rule.expected ? 8 : 1);
    }

    size_t stride, rank;
};

// The blocks of a pass: one of every `stride`, at a place in its stride that looks random, since what is inserted
// together may be alike.
class BlockCursor {
public:
    explicit BlockCursor(size_t stride) : stride_(stride) {}

    // Writes the numbers of the blocks that belong to a segment; returns how many. Segments in ascending order.
    size_t in_segment(size_t segment, uint32_t* numbers) {
        size_t n = 0;
        for (size_t block; (block = place()) < (segment + 1) * kBlocks; start_ += stride_)
            numbers[n++] = static_cast<uint32_t>(block % kBlocks);
        return n;
    }

private:
    size_t place() const { return start_ + ((start_ + stride_) * 0x9E3779B97F4A7C15 >> 32) % stride_; }

    size_t stride_, start_ = 0;
};

// What each query may find in one segment.
struct Allowed {
    uint16_t of[kScanQueries][kBlocks];

    // Removes the blocks in which no query may find anything; returns how many remain.
    size_t reduce(size_t queries, uint32_t* numbers, size_t n) const {
        const auto nothing = [&](uint32_t number) {
            uint16_t any = 0;
            for (size_t q = 0; q < queries; ++q) any |= of[q][number];
            return any == 0;
        };
        return static_cast<size_t>(std::remove_if(numbers, numbers + n, nothing) - numbers);
    }
};

class Search {
public:
    Search(const SegmentList& segments, QueryBatch& batch, const SearchOptions* options, size_t k, SampleRule rule)
        : segments_(segments), batch_(batch), options_(options), k_(k), rule_(rule),
          survivors_(batch.size() * SegmentShape::kSlots) {}

    std::vector<FoundItems> run() {
        const size_t n = batch_.size();
        std::vector<TopItems> tops;
        std::vector<FoundItems> found(n);
        for (size_t q = 0; q < n; ++q) tops.emplace_back(batch_, q, k_, options_[q].excluded);
        const SamplePlan plan(k_ + most_excluded(), rule_);
        std::vector<SampledScores> samples = sampled(plan);
        for (size_t rank = plan.rank; !all_finished(tops); rank *= 2) {
            for (size_t q = 0; q < n; ++q) {
                if (tops[q].finished()) continue;
                tops[q].start(samples[q].quantile(rank));
                ++found[q].passes;
            }
            pass(1, tops);
            for (TopItems& top : tops) top.finish();
        }
        for (size_t q = 0; q < n; ++q) {
            found[q].items = tops[q].sorted();
            found[q].survivors = tops[q].survivors();
        }
        return found;
    }

private:
    static bool all_finished(const std::vector<TopItems>& tops) {
        return std::all_of(tops.begin(), tops.end(), [](const TopItems& top) { return top.finished(); });
    }

    // Excluded items may be in the sample and reach the threshold.
    size_t most_excluded() const {
        size_t most = 0;
        for (size_t q = 0; q < batch_.size(); ++q) most = std::max(most, options_[q].excluded.size());
        return most;
    }

    std::vector<SampledScores> sampled(const SamplePlan& plan) {
        std::vector<SampledScores> samples;
        for (size_t q = 0; q < batch_.size(); ++q) samples.emplace_back(batch_, q, 4 * plan.rank);
        if (plan.stride < segments_.size() * kBlocks) pass(plan.stride, samples);
        return samples;
    }

    // `Collector` is TopItems or SampledScores.
    template <class Collector>
    void pass(size_t stride, std::vector<Collector>& collectors) {
        BlockCursor cursor(stride);
        uint32_t numbers[kBlocks];
        for (size_t s = 0, n = segments_.size(); s < n; ++s) {
            const size_t count = cursor.in_segment(s, numbers);
            if (count > 0) scan_segment(segments_[s], numbers, count, collectors);
        }
    }

    template <class Collector>
    void scan_segment(const ItemSegment& segment, uint32_t* numbers, size_t n, std::vector<Collector>& collectors) {
        const ScanKernels& kernels = simd::at_level([](auto level) -> auto& { return scan_kernels(level); });
        const std::shared_lock lock(segment.mutex());
        Allowed allowed;
        batch_.fit(segment);
        for (size_t q = 0; q < batch_.size(); ++q) {
            segment.select(options_[q].filter, allowed.of[q]);
            batch_.query(q).allowed = allowed.of[q];
            batch_.query(q).end = start_of(q);
        }
        n = allowed.reduce(batch_.size(), numbers, n);
        const uint8_t* blocks[kBlocks];
        for (size_t i = 0; i < n; ++i) blocks[i] = segment.block(numbers[i]);
        const SegmentShape& shape = segments_.shape();
        kernels.scan({blocks, numbers, n, shape.width / 4, segment.rows(), shape.row_bytes}, batch_.scan());
        for (size_t q = 0; q < batch_.size(); ++q) collectors[q].add(segment, survivors_of(q));
    }

    Survivor* start_of(size_t q) { return survivors_.data() + q * SegmentShape::kSlots; }
    std::span<const Survivor> survivors_of(size_t q) { return {start_of(q), batch_.query(q).end}; }

    const SegmentList& segments_;
    QueryBatch& batch_;
    const SearchOptions* options_;
    const size_t k_;
    const SampleRule rule_;
    std::vector<Survivor> survivors_;  // of one segment, by query
};

}  // namespace

std::vector<FoundItems> scan(const SegmentList& segments, QueryBatch& batch, const SearchOptions* options, size_t k,
                             SampleRule rule) {
    return Search(segments, batch, options, k, rule).run();
}

}  // namespace springtide
