#include "batch/sketch.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "keys/xxh64.h"

namespace springtide {
namespace {

constexpr uint32_t kMaxCount = std::numeric_limits<uint32_t>::max();

struct Header {
    char magic[4];
    uint32_t depth;
    uint64_t width;
    uint64_t seed;
};
static_assert(sizeof(Header) == 24);

constexpr size_t kChecksumBytes = sizeof(uint64_t);

void put_varint(uint64_t value, std::vector<uint8_t>& out) {
    for (; value >= 0x80; value >>= 7) out.push_back(static_cast<uint8_t>(value | 0x80));
    out.push_back(static_cast<uint8_t>(value));
}

// Reads a varint and advances `at` past it; false if it is truncated or too long.
bool read_varint(const uint8_t*& at, const uint8_t* end, uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; at < end && shift < 63; shift += 7) {
        const uint8_t byte = *at++;
        value |= static_cast<uint64_t>(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

// Calls visit(position, value) for each stored counter that is not 0; false unless the bytes are exactly `total` of
// them.
template <typename Visit>
bool read_counters(const uint8_t* at, const uint8_t* end, size_t total, Visit visit) {
    size_t position = 0;
    while (at < end) {
        uint64_t value = 0, run = 1;
        if (!read_varint(at, end, value) || value > kMaxCount) return false;
        if (value == 0 && !read_varint(at, end, run)) return false;
        if (run == 0 || run > total - position) return false;
        if (value != 0) visit(position, static_cast<uint32_t>(value));
        position += run;
    }
    return position == total;
}

bool valid(const Header& header) {
    return std::memcmp(header.magic, "FSK1", sizeof(header.magic)) == 0 && header.width >= 1 && header.depth >= 1 &&
           header.depth <= CountingSketch::kMaxDepth && header.width <= CountingSketch::kMaxCounters / header.depth;
}

uint32_t min_counter(const uint32_t* counters, const size_t* positions, uint32_t depth) {
    uint32_t minimum = kMaxCount;
    for (uint32_t row = 0; row < depth; ++row) minimum = std::min(minimum, counters[positions[row]]);
    return minimum;
}

}  // namespace

CountingSketch::CountingSketch(uint64_t width, uint32_t depth, uint64_t seed)
    : width_(width), depth_(depth), seed_(seed), counters_(width * depth, 0) {}

// Positions are part of the stored format: (upper half of XXH64(key, seed + row)) * width >> 32, which is uniform for
// any width below 2^32 and needs no division.
void CountingSketch::find_positions(const uint64_t* keys, size_t n, Positions& positions) const {
    uint64_t hashes[kBlock];
    for (uint32_t row = 0; row < depth_; ++row) {
        xxh64_words(keys, n, seed_ + row, hashes);
        for (size_t i = 0; i < n; ++i) {
            positions[i][row] = row * width_ + (((hashes[i] >> 32) * width_) >> 32);
            __builtin_prefetch(&counters_[positions[i][row]], 1);
        }
    }
}

template <class Visit>
void CountingSketch::for_each(const uint64_t* keys, size_t n, Visit visit) const {
    // Two buffers in turn: while one block is processed, the counters of the next are prefetched.
    Positions blocks[2];
    find_positions(keys, std::min(kBlock, n), blocks[0]);
    for (size_t first = 0, block = 0; first < n; first += kBlock, block ^= 1) {
        const size_t next = std::min(first + kBlock, n);
        find_positions(keys + next, std::min(kBlock, n - next), blocks[block ^ 1]);
        for (size_t i = first; i < next; ++i) visit(i, blocks[block][i - first]);
    }
}

void CountingSketch::add(const uint64_t* keys, const uint32_t* counts, size_t n, uint32_t* out) {
    uint32_t* const counters = counters_.data();
    for_each(keys, n, [=, depth = depth_](size_t i, const size_t* positions) {
        const uint32_t minimum = min_counter(counters, positions, depth), count = counts == nullptr ? 1 : counts[i];
        const uint32_t estimate = minimum + std::min(count, kMaxCount - minimum);
        out[i] = estimate;
        // Conservative update: a counter that is already higher was raised by other keys and stays unchanged.
        for (uint32_t row = 0; row < depth; ++row)
            counters[positions[row]] = std::max(counters[positions[row]], estimate);
    });
}

void CountingSketch::estimate(const uint64_t* keys, size_t n, uint32_t* out) const {
    const uint32_t* const counters = counters_.data();
    for_each(keys, n, [=, depth = depth_](size_t i, const size_t* positions) {
        out[i] = min_counter(counters, positions, depth);
    });
}

void CountingSketch::halve() {
    for (uint32_t& counter : counters_) counter >>= 1;
}

std::vector<uint8_t> CountingSketch::to_bytes() const {
    const Header header{{'F', 'S', 'K', '1'}, depth_, width_, seed_};
    std::vector<uint8_t> out(sizeof(header));
    std::memcpy(out.data(), &header, sizeof(header));
    for (auto at = counters_.begin(); at != counters_.end();) {
        put_varint(*at, out);
        const auto after = *at == 0 ? std::find_if(at, counters_.end(), [](uint32_t c) { return c != 0; }) : at + 1;
        if (*at == 0) put_varint(static_cast<uint64_t>(after - at), out);
        at = after;
    }
    const uint64_t checksum = xxh64(out.data(), out.size(), 0);
    out.resize(out.size() + kChecksumBytes);
    std::memcpy(out.data() + out.size() - kChecksumBytes, &checksum, kChecksumBytes);
    return out;
}

std::optional<CountingSketch> CountingSketch::from_bytes(const uint8_t* bytes, size_t n) {
    if (n < sizeof(Header) + kChecksumBytes) return std::nullopt;
    Header header;
    uint64_t checksum;
    std::memcpy(&header, bytes, sizeof(header));
    std::memcpy(&checksum, bytes + n - kChecksumBytes, kChecksumBytes);
    if (checksum != xxh64(bytes, n - kChecksumBytes, 0) || !valid(header)) return std::nullopt;
    const uint8_t *first = bytes + sizeof(header), *end = bytes + n - kChecksumBytes;
    const size_t total = header.width * header.depth;
    if (!read_counters(first, end, total, [](size_t, uint32_t) {})) return std::nullopt;
    CountingSketch sketch(header.width, header.depth, header.seed);
    (void)read_counters(first, end, total, [&](size_t at, uint32_t value) { sketch.counters_[at] = value; });
    // Longer encodings of varints and runs are rejected.
    const std::vector<uint8_t> encoded = sketch.to_bytes();
    if (!std::equal(encoded.begin(), encoded.end(), bytes, bytes + n)) return std::nullopt;
    return sketch;
}

uint64_t CountingSketch::digest() const {
    const uint64_t shape[3] = {width_, depth_, seed_};
    return xxh64(counters_.data(), counters_.size() * sizeof(uint32_t), xxh64(shape, sizeof(shape), 0));
}

}  // namespace springtide
