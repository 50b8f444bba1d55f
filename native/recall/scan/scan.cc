#include "recall/scan/scan.h"

#include <algorithm>
#include <optional>
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

    // The blocks of a pass in one segment.
    struct Part {
        Part(const SegmentList& segments, size_t number, BlockCursor& cursor)
            : segment(&segments[number]), count(cursor.in_segment(number, numbers)) {}

        const ItemSegment* segment;
        uint32_t numbers[kBlocks];
        size_t count;
    };

    // `Collector` is TopItems or SampledScores.
    template <class Collector>
    void pass(size_t stride, std::vector<Collector>& collectors) {
        BlockCursor cursor(stride);
        const size_t n = segments_.size();
        std::optional<Part> next;
        if (n > 0) next.emplace(segments_, 0, cursor);
        for (size_t s = 0; s < n; ++s) {
            Part part = *next;
            if (s + 1 < n) next.emplace(segments_, s + 1, cursor);
            if (part.count > 0) scan_part(part, *next, collectors);
        }
    }

    // `next` is what is scanned afterwards, of which the first blocks are brought into the cache.
    template <class Collector>
    void scan_part(Part& part, const Part& next, std::vector<Collector>& collectors) {
        const ItemSegment& segment = *part.segment;
        const ScanKernels& kernels = simd::at_level([](auto level) -> auto& { return scan_kernels(level); });
        const std::shared_lock lock(segment.mutex());
        Allowed allowed;
        batch_.fit(segment);
        for (size_t q = 0; q < batch_.size(); ++q) {
            segment.select(options_[q].filter, allowed.of[q]);
            batch_.query(q).allowed = allowed.of[q];
            batch_.query(q).end = start_of(q);
        }
        const size_t n = allowed.reduce(batch_.size(), part.numbers, part.count);
        const uint8_t* blocks[kBlocks + kBlocksAhead];
        for (size_t i = 0; i < n; ++i) blocks[i] = segment.block(part.numbers[i]);
        for (size_t i = 0; i < kBlocksAhead; ++i)
            blocks[n + i] = next.segment->block(i < next.count ? next.numbers[i] : part.numbers[0]);
        const SegmentShape& shape = segments_.shape();
        kernels.scan({blocks, part.numbers, n, shape.width / 4, segment.rows(), shape.row_bytes}, batch_.scan());
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
