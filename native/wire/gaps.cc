#include "wire/gaps.h"

#include <algorithm>

namespace springtide {
namespace {

constexpr uint8_t kMore = 0x80;
constexpr size_t kMaxGapBytes = 10;  // for a gap of 64 bits

}  // namespace

void append_gaps(const uint64_t* values, size_t n, std::vector<uint8_t>& encoded) {
    uint64_t previous = 0;
    for (size_t i = 0; i < n; ++i) {
        uint64_t gap = values[i] - previous;
        previous = values[i];
        for (; gap >= kMore; gap >>= 7) encoded.push_back(static_cast<uint8_t>(gap) | kMore);
        encoded.push_back(static_cast<uint8_t>(gap));
    }
}

size_t count_gaps(const uint8_t* encoded, size_t size) {
    return static_cast<size_t>(std::count_if(encoded, encoded + size, [](uint8_t byte) { return byte < kMore; }));
}

const char* read_gaps(const uint8_t* encoded, size_t size, uint64_t* values) {
    uint64_t previous = 0;
    for (size_t at = 0; at < size;) {
        uint64_t gap = 0;
        size_t length = 0;
        for (bool more = true; more; ++length, ++at) {
            if (at == size) return "end inside a number";
            if (length == kMaxGapBytes) return "have a gap of more than 10 bytes";
            const uint64_t part = encoded[at] & (kMore - 1);
            if (length == kMaxGapBytes - 1 && part > 1) return "have a gap above 64 bits";
            gap |= part << (7 * length);
            more = encoded[at] >= kMore;
        }
        if (__builtin_add_overflow(previous, gap, &previous)) return "lead to a number above 64 bits";
        *values++ = previous;
    }
    return nullptr;
}

}  // namespace springtide
