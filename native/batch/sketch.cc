#include "batch/sketch.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "batch/xxh64.h"

namespace springtide {
namespace {

constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();

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

// Reads one varint and moves `at` behind it; false where it is cut off or too long.
bool take_varint(const uint8_t*& at, const uint8_t* end, uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; at < end && shift < 63; shift += 7) {
        const uint8_t byte = *at++;
        value |= static_cast<uint64_t>(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

// Hands out each stored counter that is not 0 with its place; false unless the bytes are exactly `total` counters.
template <typename Take>
bool read_counters(const uint8_t* at, const uint8_t* end, size_t total, Take take) {
    size_t place = 0;
    while (at < end) {
        uint64_t value = 0, run = 1;
        if (!take_varint(at, end, value) || value > kMost) return false;
        if (value == 0 && !take_varint(at, end, run)) return false;
        if (run == 0 || run > total - place) return false;
        if (value != 0) take(place, static_cast<uint32_t>(value));
        place += run;
    }
    return place == total;
}

bool possible(const Header& header) {
    return std::memcmp(header.magic, "FSK1", sizeof(header.magic)) == 0 && header.width >= 1 && header.depth >= 1 &&
           header.depth <= CountingSketch::kMostRows && header.width <= CountingSketch::kMostCounters / header.depth;
}

uint32_t least_of(const uint32_t* counters, const size_t* places, uint32_t depth) {
    uint32_t least = kMost;
    for (uint32_t row = 0; row < depth; ++row) least = std::min(least, counters[places[row]]);
    return least;
}

}  // namespace

CountingSketch::CountingSketch(uint64_t width, uint32_t depth, uint64_t seed)
    : width_(width), depth_(depth), seed_(seed), counters_(width * depth, 0) {}

// Places are stored format: the upper half of XXH64(key, seed + row) times the width, shifted down, which is uniform for
// any width below 2^32, without a division.
void CountingSketch::find_places(const uint64_t* keys, size_t n, Places& places) const {
    uint64_t hashes[kAbreast];
    for (uint32_t row = 0; row < depth_; ++row) {
        xxh64_words(keys, n, seed_ + row, hashes);
        for (size_t i = 0; i < n; ++i) {
            places[i][row] = row * width_ + (((hashes[i] >> 32) * width_) >> 32);
            __builtin_prefetch(&counters_[places[i][row]], 1);
        }
    }
}

template <class Visit>
void CountingSketch::for_each(const uint64_t* keys, size_t n, Visit visit) const {
    // Two halves in turn: while one is worked on, the counters of the other are on their way.
    Places halves[2];
    find_places(keys, std::min(kAbreast, n), halves[0]);
    for (size_t first = 0, half = 0; first < n; first += kAbreast, half ^= 1) {
        const size_t next = std::min(first + kAbreast, n);
        find_places(keys + next, std::min(kAbreast, n - next), halves[half ^ 1]);
        for (size_t i = first; i < next; ++i) visit(i, halves[half][i - first]);
    }
}

void CountingSketch::add(const uint64_t* keys, const uint32_t* counts, size_t n, uint32_t* out) {
    uint32_t* const counters = counters_.data();
    for_each(keys, n, [=, depth = depth_](size_t i, const size_t* places) {
        const uint32_t least = least_of(counters, places, depth), count = counts == nullptr ? 1 : counts[i];
        const uint32_t estimate = least + std::min(count, kMost - least);
        out[i] = estimate;
        // Conservative: a counter that is already higher was raised by other keys and says nothing about this one.
        for (uint32_t row = 0; row < depth; ++row) counters[places[row]] = std::max(counters[places[row]], estimate);
    });
}

void CountingSketch::estimate(const uint64_t* keys, size_t n, uint32_t* out) const {
    const uint32_t* const counters = counters_.data();
    for_each(keys, n, [=, depth = depth_](size_t i, const size_t* places) { out[i] = least_of(counters, places, depth); });
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
    if (checksum != xxh64(bytes, n - kChecksumBytes, 0) || !possible(header)) return std::nullopt;
    const uint8_t *first = bytes + sizeof(header), *end = bytes + n - kChecksumBytes;
    const size_t total = header.width * header.depth;
    if (!read_counters(first, end, total, [](size_t, uint32_t) {})) return std::nullopt;
    CountingSketch sketch(header.width, header.depth, header.seed);
    (void)read_counters(first, end, total, [&](size_t place, uint32_t value) { sketch.counters_[place] = value; });
    // Numbers and runs can be spelled at more length than need be.
    const std::vector<uint8_t> spelled = sketch.to_bytes();
    if (!std::equal(spelled.begin(), spelled.end(), bytes, bytes + n)) return std::nullopt;
    return sketch;
}

uint64_t CountingSketch::digest() const {
    const uint64_t shape[3] = {width_, depth_, seed_};
    return xxh64(counters_.data(), counters_.size() * sizeof(uint32_t), xxh64(shape, sizeof(shape), 0));
}

}  // namespace springtide
