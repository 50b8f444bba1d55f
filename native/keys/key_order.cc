#include "keys/key_order.h"

#include <array>
#include <cstddef>
#include <utility>

namespace springtide {
namespace {

constexpr unsigned kBits = 11;
constexpr size_t kDigits = size_t{1} << kBits;
constexpr unsigned kPasses = (64 + kBits - 1) / kBits;

struct Entry {
    uint64_t key;
    uint32_t index;
};

size_t digit(uint64_t key, unsigned pass) { return key >> (pass * kBits) & (kDigits - 1); }

using Counts = std::array<std::array<uint32_t, kDigits>, kPasses>;

void count(std::span<const uint64_t> keys, Counts& counts) {
    for (const uint64_t key : keys)
        for (unsigned pass = 0; pass < kPasses; ++pass) ++counts[pass][digit(key, pass)];
}

}  // namespace

// Radix sort, least significant digit first (Knuth, The Art of Computer Programming 3, section 5.2.5).
std::vector<uint32_t> ascending(std::span<const uint64_t> keys) {
    std::vector<Entry> from(keys.size()), to(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) from[i] = {keys[i], static_cast<uint32_t>(i)};
    std::vector<Counts> counts(1);  // 48 KiB, too large for the stack
    count(keys, counts[0]);
    for (unsigned pass = 0; pass < kPasses && !keys.empty(); ++pass) {
        std::array<uint32_t, kDigits>& starts = counts[0][pass];
        if (starts[digit(keys[0], pass)] == keys.size()) continue;
        uint32_t at = 0;
        for (uint32_t& start : starts) at += std::exchange(start, at);
        for (const Entry& entry : from) to[starts[digit(entry.key, pass)]++] = entry;
        from.swap(to);
    }
    std::vector<uint32_t> order(keys.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = from[i].index;
    return order;
}

}  // namespace springtide
