#include "gather.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace freshet {
namespace {

constexpr size_t kShort = 16;

size_t chunk_of(uint64_t place) { return place >> 32; }
size_t row_of(uint64_t place) { return place & 0xFFFFFFFF; }

bool bit(const Bits& bits, size_t row) {
    const size_t at = bits.offset + row;
    return bits.bytes == nullptr || (bits.bytes[at >> 3] >> (at & 7) & 1);
}

}  // namespace

bool places_fit(std::span<const uint64_t> places, std::span<const uint64_t> rows) {
    bool fit = true;
    for (const uint64_t place : places) {
        if (chunk_of(place) >= rows.size()) return false;
        fit &= row_of(place) < rows[chunk_of(place)];
    }
    return fit;
}

template <typename Word>
void gather_words(std::span<const uint64_t> places, const Word* const* chunks, Word* out) {
    for (const uint64_t place : places) *out++ = chunks[chunk_of(place)][row_of(place)];
}

template void gather_words(std::span<const uint64_t>, const uint8_t* const*, uint8_t*);
template void gather_words(std::span<const uint64_t>, const uint32_t* const*, uint32_t*);
template void gather_words(std::span<const uint64_t>, const uint64_t* const*, uint64_t*);

size_t gather_bits(std::span<const uint64_t> places, const Bits* chunks, uint8_t* out) {
    size_t ones = 0;
    for (size_t start = 0; start < places.size(); start += 8) {
        const auto eight = places.subspan(start, std::min<size_t>(8, places.size() - start));
        unsigned byte = 0;
        for (size_t i = 0; i < eight.size(); ++i) {
            const unsigned one = bit(chunks[chunk_of(eight[i])], row_of(eight[i]));
            byte |= one << i;
            ones += one;
        }
        *out++ = static_cast<uint8_t>(byte);
    }
    return places.size() - ones;
}

bool gather_offsets(std::span<const uint64_t> places, const Ranges* chunks, int32_t* out) {
    int64_t sum = 0;
    *out++ = 0;
    for (const uint64_t place : places) {
        const Ranges& chunk = chunks[chunk_of(place)];
        const int64_t begin = chunk.offsets[row_of(place)], end = chunk.offsets[row_of(place) + 1];
        if (begin < 0 || end < begin || static_cast<uint64_t>(end) > chunk.bytes) return false;
        sum += end - begin;
        if (sum > std::numeric_limits<int32_t>::max()) return false;
        *out++ = static_cast<int32_t>(sum);
    }
    return true;
}

void gather_texts(std::span<const uint64_t> places, const Ranges* chunks, const int32_t* offsets, uint8_t* out) {
    const size_t all = static_cast<size_t>(offsets[places.size()]);
    for (size_t i = 0; i < places.size(); ++i) {
        const Ranges& chunk = chunks[chunk_of(places[i])];
        const size_t begin = static_cast<size_t>(chunk.offsets[row_of(places[i])]);
        const size_t at = static_cast<size_t>(offsets[i]), length = static_cast<size_t>(offsets[i + 1]) - at;
        // Most texts are short: a copy of fixed length is two instructions. What it writes too much the next text
        // overwrites; near the ends of either side there is no room for that.
        if (length <= kShort && begin + kShort <= chunk.bytes && at + kShort <= all)
            std::memcpy(out + at, chunk.text + begin, kShort);
        else if (length != 0)
            std::memcpy(out + at, chunk.text + begin, length);
    }
}

void gather_members(std::span<const uint64_t> places, const Ranges* chunks, uint64_t* out) {
    for (const uint64_t place : places) {
        const int32_t* offsets = chunks[chunk_of(place)].offsets + row_of(place);
        for (int32_t at = offsets[0]; at < offsets[1]; ++at)
            *out++ = (place >> 32 << 32) | static_cast<uint64_t>(at);
    }
}

}  // namespace freshet
