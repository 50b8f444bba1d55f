#include "batch/gather.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace springtide {
namespace {

constexpr size_t kShortText = 16;  // bytes

size_t chunk_of(uint64_t place) { return place >> 32; }
size_t row_of(uint64_t place) { return place & 0xFFFFFFFF; }

bool bit(const Bits& bits, size_t row) {
    const size_t at = bits.offset + row;
    return bits.bytes == nullptr || (bits.bytes[at >> 3] >> (at & 7) & 1);
}

// Calls visit(first, n) for each run of consecutive rows, in order, while it returns true; returns whether all did.
// Places are mostly long runs, each of which is copied at once.
template <typename Visit>
bool for_each_run(std::span<const uint64_t> places, Visit visit) {
    for (size_t first = 0, n = 1; first < places.size(); first += n, n = 1) {
        while (first + n < places.size() && places[first + n] == places[first] + n) ++n;
        if (!visit(first, n)) return false;
    }
    return true;
}

// Whether n + 1 offsets are ascending. Without an early exit, so that the loop is vectorised.
bool ascending(const int32_t* offsets, size_t n) {
    bool descends = false;
    for (size_t i = 0; i < n; ++i) descends |= offsets[i + 1] < offsets[i];
    return !descends;
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
    for_each_run(places, [=](size_t first, size_t n) {
        const Word* from = chunks[chunk_of(places[first])] + row_of(places[first]);
        if (n == 1)
            out[first] = *from;
        else
            std::memcpy(out + first, from, n * sizeof(Word));
        return true;
    });
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
    out[0] = 0;
    return for_each_run(places, [=](size_t first, size_t n) {
        const Ranges& chunk = chunks[chunk_of(places[first])];
        const int32_t* from = chunk.offsets + row_of(places[first]);
        const int64_t begin = from[0], end = from[n];
        if (begin < 0 || end < begin || static_cast<uint64_t>(end) > chunk.bytes || !ascending(from, n)) return false;
        const int64_t shift = out[first] - begin;
        if (end + shift > std::numeric_limits<int32_t>::max()) return false;
        for (size_t i = 1; i <= n; ++i) out[first + i] = static_cast<int32_t>(from[i] + shift);
        return true;
    });
}

void gather_texts(std::span<const uint64_t> places, const Ranges* chunks, const int32_t* offsets, uint8_t* out) {
    const size_t total = static_cast<size_t>(offsets[places.size()]);
    for_each_run(places, [=](size_t first, size_t n) {
        const Ranges& chunk = chunks[chunk_of(places[first])];
        const size_t begin = static_cast<size_t>(chunk.offsets[row_of(places[first])]);
        const size_t at = static_cast<size_t>(offsets[first]), length = static_cast<size_t>(offsets[first + n]) - at;
        // A single text is mostly short, and a copy of fixed length is two instructions. The next text overwrites the
        // excess bytes; near the end of the source or the output the exact length is copied.
        if (length <= kShortText && begin + kShortText <= chunk.bytes && at + kShortText <= total)
            std::memcpy(out + at, chunk.text + begin, kShortText);
        else if (length != 0)
            std::memcpy(out + at, chunk.text + begin, length);
        return true;
    });
}

void gather_members(std::span<const uint64_t> places, const Ranges* chunks, uint64_t* out) {
    for (const uint64_t place : places) {
        const int32_t* offsets = chunks[chunk_of(place)].offsets + row_of(place);
        for (int32_t at = offsets[0]; at < offsets[1]; ++at)
            *out++ = (place >> 32 << 32) | static_cast<uint64_t>(at);
    }
}

}  // namespace springtide
