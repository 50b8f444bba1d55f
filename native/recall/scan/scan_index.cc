#include "recall/scan/scan_index.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "keys/xxh64.h"

namespace springtide {
namespace {

constexpr size_t kPieceItems = 256;
constexpr size_t kSlots = SegmentShape::kSlots;

const VectorCodeKernels& kernels() {
    return simd::at_level([](auto level) -> auto& { return vector_code_kernels(level); });
}

// For KeyIndex.
struct IdOf {
    const SegmentList& segments;

    uint64_t operator()(uint32_t slot) const { return segments[slot / kSlots].id(slot % kSlots); }
    [[gnu::always_inline]] void prefetch(uint32_t slot) const {
        __builtin_prefetch(segments[slot / kSlots].lower(slot % kSlots) - sizeof(uint64_t));
    }
};

}  // namespace

// The codes of up to kPieceItems vectors.
struct ScanIndex::Coded {
    explicit Coded(size_t width)
        : width(width), vector(width), codes(std::make_unique_for_overwrite<int8_t[]>(2 * kPieceItems * width)) {}

    void encode(const float* vectors, size_t n, size_t dim) {
        for (size_t i = 0; i < n; ++i) {
            std::copy_n(vectors + i * dim, dim, vector.data());
            found[i] = kernels().encode(vector.data(), width, upper(i), lower(i));
        }
    }

    CodedItem operator[](size_t i) const { return {upper(i), lower(i), found[i]}; }
    int8_t* upper(size_t i) const { return codes.get() + 2 * i * width; }
    int8_t* lower(size_t i) const { return upper(i) + width; }

    size_t width;
    std::vector<float> vector;  // padded with zeros
    std::unique_ptr<int8_t[]> codes;
    CodedVector found[kPieceItems];
};

ScanIndex::ScanIndex(size_t dim, size_t attributes, SampleRule rule)
    : dim_(dim), rule_(rule), segments_(SegmentShape(dim, attributes)) {}

size_t ScanIndex::first_uncodable(const float* vectors, size_t n) const {
    std::vector<float> vector(segments_.shape().width);
    for (size_t i = 0; i < n; ++i) {
        std::copy_n(vectors + i * dim_, dim_, vector.data());
        if (!kernels().codable(vector.data(), vector.size())) return i;
    }
    return n;
}

void ScanIndex::put(const uint64_t* ids, const float* vectors, const uint64_t* attributes, size_t n) {
    Coded coded(segments_.shape().width);
    for (size_t start = 0; start < n; start += kPieceItems) {
        const size_t count = std::min(kPieceItems, n - start);
        coded.encode(vectors + start * dim_, count, dim_);
        const std::lock_guard lock(changes_);
        std::vector<uint32_t> slots = slots_of({ids + start, count});
        for (size_t i = 0; i < count; ++i)
            if (slots[i] == kNoRow) slots[i] = slot_for(ids[start + i]);
        write(slots, coded, attributes + start);
    }
}

// Memory of an item is brought into the cache while earlier ones are written.
void ScanIndex::write(std::span<const uint32_t> slots, const Coded& coded, const uint64_t* attributes) {
    constexpr size_t kAhead = 4;
    for (size_t i = 0; i < slots.size() + kAhead; ++i) {
        if (i < slots.size()) segment_of(slots[i]).prefetch(slots[i] % kSlots);
        if (i < kAhead) continue;
        ItemSegment& segment = segment_of(slots[i - kAhead]);
        const std::unique_lock lock(segment.mutex());
        segment.write(slots[i - kAhead] % kSlots, coded[i - kAhead], attributes[i - kAhead]);
    }
}

std::vector<uint32_t> ScanIndex::slots_of(std::span<const uint64_t> ids) const {
    std::vector<uint32_t> slots(ids.size());
    index_.find_each(ids, IdOf{segments_}, [&](size_t i, uint32_t slot) { slots[i] = slot; });
    return slots;
}

// The slot of an id that had none before this piece, in which it may be repeated.
uint32_t ScanIndex::slot_for(uint64_t id) {
    const uint32_t known = index_.find(id, IdOf{segments_});
    if (known != kNoRow) return known;
    if (free_.empty()) add_segment();
    const uint32_t slot = free_.back();
    ItemSegment& segment = segment_of(slot);
    {
        const std::unique_lock lock(segment.mutex());
        segment.set_id(slot % kSlots, id);
    }
    index_.insert(id, slot, IdOf{segments_});
    free_.pop_back();
    return slot;
}

// Free slots are taken from the end of the list: the lowest first.
void ScanIndex::add_segment() {
    const size_t first = segments_.size() * kSlots;
    free_.reserve(first + kSlots);
    segments_.add();
    for (size_t i = kSlots; i > 0; --i) free_.push_back(static_cast<uint32_t>(first + i - 1));
}

size_t ScanIndex::remove(const uint64_t* ids, size_t n) {
    size_t removed = 0;
    for (size_t start = 0; start < n; start += kPieceItems) {
        const std::lock_guard lock(changes_);
        removed += remove_piece({ids + start, std::min(kPieceItems, n - start)});
    }
    return removed;
}

size_t ScanIndex::remove_piece(std::span<const uint64_t> ids) {
    const std::vector<uint32_t> slots = slots_of(ids);
    size_t removed = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
        if (slots[i] == kNoRow) continue;
        ItemSegment& segment = segment_of(slots[i]);
        if (!segment.live(slots[i] % kSlots)) continue;  // repeated in this piece
        index_.erase(ids[i], slots[i]);
        {
            const std::unique_lock lock(segment.mutex());
            segment.clear(slots[i] % kSlots);
        }
        free_.push_back(slots[i]);
        ++removed;
    }
    return removed;
}

std::vector<FoundItems> ScanIndex::search(const float* queries, size_t n, size_t k,
                                          const SearchOptions* options) const {
    std::vector<FoundItems> found;
    found.reserve(n);
    for (size_t start = 0; start < n; start += kScanQueries) {
        QueryBatch batch(queries + start * dim_, std::min(kScanQueries, n - start), dim_, segments_.shape().width);
        for (FoundItems& each : scan(segments_, batch, options + start, k, rule_)) found.push_back(std::move(each));
    }
    return found;
}

uint64_t ScanIndex::digest() const {
    std::vector<int8_t> upper(segments_.shape().width);
    std::vector<uint8_t> bytes(sizeof(float) + sizeof(uint64_t) + 2 * dim_);
    const std::lock_guard lock(changes_);
    uint64_t sum = 0;
    for (size_t at = 0; at < segments_.size() * kSlots; ++at) {
        const ItemSegment& segment = segments_[at / kSlots];
        const size_t slot = at % kSlots;
        if (!segment.live(slot)) continue;
        const float scale = segment.read(slot, upper.data());
        const uint64_t attributes = segment.attributes(slot);
        uint8_t* out = bytes.data();
        std::memcpy(out, &scale, sizeof(scale));
        std::memcpy(out += sizeof(scale), &attributes, sizeof(attributes));
        std::memcpy(out += sizeof(attributes), upper.data(), dim_);
        std::memcpy(out += dim_, segment.lower(slot), dim_);
        sum += xxh64(bytes.data(), bytes.size(), segment.id(slot));
    }
    return sum;
}

size_t ScanIndex::size() const {
    const std::lock_guard lock(changes_);
    return index_.size();
}

size_t ScanIndex::memory_bytes() const {
    const std::lock_guard lock(changes_);
    return segments_.memory_bytes() + index_.memory_bytes() + free_.capacity() * sizeof(uint32_t);
}

}  // namespace springtide
