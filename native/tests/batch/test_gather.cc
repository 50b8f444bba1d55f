// Gathering without Python: places at the ends of chunks, texts shorter and longer than the fixed-length copy, bits.
#include "batch/gather.h"

#include <random>
#include <string>
#include <vector>

#include "tests/expect.h"

namespace {

using namespace springtide;

uint64_t place(uint64_t chunk, uint64_t row) { return chunk << 32 | row; }

void texts_are_gathered_completely() {
    std::mt19937_64 random(3);
    std::vector<std::vector<int32_t>> offsets(3, {0});
    std::vector<std::string> texts(3);
    for (size_t chunk = 0; chunk < 3; ++chunk)
        for (int row = 0; row < 200; ++row) {
            texts[chunk] += std::string(random() % 40, static_cast<char>('a' + random() % 26));
            offsets[chunk].push_back(static_cast<int32_t>(texts[chunk].size()));
        }
    std::vector<Ranges> chunks;
    for (size_t c = 0; c < 3; ++c)
        chunks.push_back({offsets[c].data(), reinterpret_cast<const uint8_t*>(texts[c].data()), texts[c].size()});
    std::vector<uint64_t> places{place(2, 199), place(0, 0)};
    for (int i = 0; i < 500; ++i) places.push_back(place(random() % 3, random() % 200));
    std::vector<int32_t> ends(places.size() + 1);
    expect(gather_offsets(places, chunks.data(), ends.data()), "offsets fit");
    std::vector<uint8_t> out(static_cast<size_t>(ends.back()));
    gather_texts(places, chunks.data(), ends.data(), out.data());
    std::string wanted;
    for (const uint64_t at : places) {
        const auto& of = offsets[at >> 32];
        const size_t row = at & 0xFFFFFFFF;
        wanted += texts[at >> 32].substr(static_cast<size_t>(of[row]), static_cast<size_t>(of[row + 1] - of[row]));
    }
    expect(std::string(out.begin(), out.end()) == wanted, "texts");
}

void damaged_offsets_are_rejected() {
    for (const std::vector<int32_t>& offsets : {std::vector{0, 4}, std::vector{-1, 2}, std::vector{2, 1}}) {
        const Ranges chunk{offsets.data(), nullptr, 3};
        int32_t out[2];
        expect(!gather_offsets(std::vector{place(0, 0)}, &chunk, out), "offsets outside the text");
    }
    const int32_t huge[] = {0, INT32_MAX};
    const Ranges chunk{huge, nullptr, INT32_MAX};
    int32_t out[3];
    expect(gather_offsets(std::vector{place(0, 0)}, &chunk, out), "the largest total length");
    expect(!gather_offsets(std::vector{place(0, 0), place(0, 0)}, &chunk, out), "more than int32");
}

void bits_words_and_members() {
    const uint8_t bytes[] = {0b00000100, 0b1};
    const Bits chunks[] = {{bytes, 1}, {nullptr, 0}};
    const std::vector<uint64_t> places{place(0, 1), place(0, 0), place(1, 5), place(0, 7), place(0, 2)};
    uint8_t out = 0;
    expect(gather_bits(places, chunks, &out) == 2 && out == 0b01101, "bits at an offset; no bitmap means ones");
    const uint32_t first[] = {1, 2}, second[] = {3};
    const uint32_t* words[] = {first, second};
    uint32_t got[2];
    gather_words<uint32_t>(std::vector{place(1, 0), place(0, 1)}, words, got);
    expect(got[0] == 3 && got[1] == 2, "words");
    const int32_t offsets[] = {0, 2, 2, 5};
    const Ranges lists[] = {{nullptr, nullptr, 0}, {offsets, nullptr, 5}};
    uint64_t members[3];
    gather_members(std::vector{place(1, 1), place(1, 2)}, lists, members);
    expect(members[0] == place(1, 2) && members[2] == place(1, 4), "members");
}

void places_are_checked() {
    const std::vector<uint64_t> rows{2, 0};
    expect(places_fit(std::vector{place(0, 1)}, rows), "a row");
    expect(!places_fit(std::vector{place(0, 2)}, rows) && !places_fit(std::vector{place(1, 0)}, rows), "no row");
    expect(!places_fit(std::vector{place(2, 0)}, rows), "no chunk");
}

}  // namespace

int main() {
    texts_are_gathered_completely();
    damaged_offsets_are_rejected();
    bits_words_and_members();
    places_are_checked();
}
