// The counting sketch without Python: counts compared with a map, round trips, and damage to every byte.
#include "batch/sketch.h"

#include <map>
#include <random>

#include "keys/xxh64.h"
#include "tests/expect.h"

namespace {

using springtide::CountingSketch;

CountingSketch filled(uint64_t width, uint32_t depth, size_t n) {
    CountingSketch sketch(width, depth, 3);
    std::mt19937_64 random(1);
    std::vector<uint64_t> keys(n);
    for (uint64_t& key : keys) key = random() % 500;
    std::vector<uint32_t> out(n);
    sketch.add(keys.data(), nullptr, n, out.data());
    return sketch;
}

void estimates_are_never_too_low() {
    CountingSketch sketch(64, 3, 3);
    std::map<uint64_t, uint32_t> counts;
    std::mt19937_64 random(2);
    for (int i = 0; i < 5000; ++i) {
        const uint64_t key = random() % 300;
        uint32_t estimate;
        sketch.add(&key, nullptr, 1, &estimate);
        expect(estimate >= ++counts[key], "estimate after addition");
    }
    for (const auto& [key, count] : counts) {
        uint32_t estimate;
        sketch.estimate(&key, 1, &estimate);
        expect(estimate >= count, "estimate");
    }
}

void bytes_survive_a_round_trip() {
    for (const auto& [width, depth] : std::vector<std::pair<uint64_t, uint32_t>>{{1, 1}, {3, 16}, {1000, 4}}) {
        const CountingSketch sketch = filled(width, depth, 400);
        const std::vector<uint8_t> bytes = sketch.to_bytes();
        const auto again = CountingSketch::from_bytes(bytes.data(), bytes.size());
        expect(again.has_value() && again->to_bytes() == bytes && again->digest() == sketch.digest(), "round trip");
    }
}

void damage_is_detected() {
    const std::vector<uint8_t> bytes = filled(16, 2, 40).to_bytes();
    for (size_t i = 0; i < bytes.size(); ++i) {
        std::vector<uint8_t> damaged = bytes;
        damaged[i] ^= 1;
        expect(!CountingSketch::from_bytes(damaged.data(), damaged.size()), "flipped bit");
        const std::vector<uint8_t> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(i));
        expect(!CountingSketch::from_bytes(cut.data(), cut.size()), "truncated");
    }
}

// The stored format of a sketch with these counter bytes and a valid checksum.
std::vector<uint8_t> sealed(uint64_t width, uint32_t depth, const std::vector<uint8_t>& counters) {
    std::vector<uint8_t> bytes = {'F', 'S', 'K', '1'};
    const auto put = [&](uint64_t number, size_t width_bytes) {
        for (size_t i = 0; i < width_bytes; ++i) bytes.push_back(static_cast<uint8_t>(number >> 8 * i));
    };
    put(depth, 4);
    put(width, 8);
    put(3, 8);
    bytes.insert(bytes.end(), counters.begin(), counters.end());
    put(springtide::xxh64(bytes.data(), bytes.size(), 0), 8);
    return bytes;
}

bool read(const std::vector<uint8_t>& bytes) {
    return CountingSketch::from_bytes(bytes.data(), bytes.size()).has_value();
}

void only_the_canonical_encoding_is_accepted() {
    expect(read(sealed(4, 1, {5, 0, 3})), "5 and three zeros");
    expect(!read(sealed(4, 1, {5, 0, 1, 0, 2})), "a run in two parts");
    expect(!read(sealed(4, 1, {0x85, 0, 0, 3})), "a varint with a redundant byte");
    expect(!read(sealed(4, 1, {5, 0, 2})), "one counter too few");
    expect(!read(sealed(4, 1, {5, 0, 4})), "one counter too many");
}

void a_wrong_size_allocates_no_memory() {
    const uint64_t max = CountingSketch::kMaxCounters;
    expect(!read(sealed(max, 1, {5, 0, 3})), "fewer counters than the header has");
    expect(!read(sealed(max + 1, 1, {0, 0x81, 0x80, 0x80, 0x80, 0x01})), "one counter above the maximum");
    expect(!read(sealed(~uint64_t{0}, 16, {0, 1})), "a product that overflows");
}

void halving_rounds_down() {
    CountingSketch sketch(256, 4, 1);
    const uint64_t keys[3] = {7, 7, 7};
    uint32_t out[3];
    sketch.add(keys, nullptr, 3, out);
    sketch.halve();
    sketch.estimate(keys, 1, out);
    expect(out[0] == 1, "half of three");
}

// Batch sizes around the number of keys that are prefetched together.
void a_count_equals_repeated_additions() {
    std::mt19937_64 random(4);
    for (size_t n = 0; n < 70; ++n) {
        CountingSketch at_once(40, 3, 3), one_by_one(40, 3, 3);
        std::vector<uint64_t> keys(n);
        std::vector<uint32_t> counts(n), out(n);
        for (size_t i = 0; i < n; ++i) keys[i] = random() % 90, counts[i] = static_cast<uint32_t>(random() % 5);
        at_once.add(keys.data(), counts.data(), n, out.data());
        for (size_t i = 0; i < n; ++i) {
            uint32_t estimate;
            one_by_one.estimate(&keys[i], 1, &estimate);
            for (uint32_t k = 0; k < counts[i]; ++k) one_by_one.add(&keys[i], nullptr, 1, &estimate);
            expect(out[i] == estimate, "estimate after several");
        }
        expect(at_once.digest() == one_by_one.digest(), "the same counters");
    }
}

void counters_saturate() {
    CountingSketch sketch(8, 2, 1);
    const uint64_t keys[3] = {7, 7, 7};
    const uint32_t counts[3] = {~uint32_t{0} - 1, 1, 5};
    uint32_t out[3];
    sketch.add(keys, counts, 3, out);
    expect(out[0] == ~uint32_t{0} - 1 && out[1] == ~uint32_t{0} && out[2] == ~uint32_t{0}, "saturated");
    sketch.add(keys, nullptr, 1, out);
    expect(out[0] == ~uint32_t{0}, "no overflow");
}

}  // namespace

int main() {
    estimates_are_never_too_low();
    bytes_survive_a_round_trip();
    damage_is_detected();
    only_the_canonical_encoding_is_accepted();
    a_wrong_size_allocates_no_memory();
    halving_rounds_down();
    a_count_equals_repeated_additions();
    counters_saturate();
}
