// Arrow columns with arbitrary offsets: rejected, or gathered within their buffers.
#include "batch/gather.h"

#include "fuzz/input.h"

namespace {

constexpr size_t kMaxRows = 12;

// A chunk of a column; each buffer has the exact size.
struct Chunk {
    std::vector<int32_t> offsets;
    std::vector<uint8_t> text, bits;
    size_t bit_offset;

    explicit Chunk(Input& input) {
        const size_t n = 1 + input.take_size(kMaxRows);
        offsets = input.take_many<int32_t>(n + 1);
        if (input.take<uint8_t>() % 4 != 0)
            for (int32_t& offset : offsets) offset &= 31;  // close to valid offsets
        if (input.take<uint8_t>() % 2 != 0) std::sort(offsets.begin(), offsets.end());
        text = input.take_many<uint8_t>(input.take_size(40));
        bit_offset = input.take_size(9);
        bits = input.take_many<uint8_t>((n + bit_offset + 7) / 8);
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    std::vector<Chunk> chunks;
    for (size_t count = 1 + input.take_size(3); count > 0; --count) chunks.emplace_back(input);
    std::vector<uint64_t> rows, places = input.take_many<uint64_t>(input.take_size(20));
    std::vector<springtide::Ranges> ranges;
    std::vector<springtide::Bits> bits;
    for (const Chunk& chunk : chunks) {
        rows.push_back(chunk.offsets.size() - 1);
        ranges.push_back({chunk.offsets.data(), chunk.text.data(), chunk.text.size()});
        bits.push_back({chunk.bits.data(), chunk.bit_offset});
    }
    for (uint64_t& place : places) place = (place >> 32) % (chunks.size() + 1) << 32 | (place & 15);
    if (!springtide::places_fit(places, rows)) return 0;
    std::vector<uint8_t> picked((places.size() + 7) / 8);
    springtide::gather_bits(places, bits.data(), picked.data());
    std::vector<int32_t> offsets(places.size() + 1);
    if (!springtide::gather_offsets(places, ranges.data(), offsets.data())) return 0;
    std::vector<uint8_t> texts(static_cast<size_t>(offsets.back()));
    springtide::gather_texts(places, ranges.data(), offsets.data(), texts.data());
    std::vector<uint64_t> members(static_cast<size_t>(offsets.back()));
    springtide::gather_members(places, ranges.data(), members.data());
    return 0;
}
