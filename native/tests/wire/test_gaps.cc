// Gap encoding without Python: golden bytes, every length, and arbitrary bytes.
#include "wire/gaps.h"

#include <algorithm>
#include <random>
#include <string>

#include "tests/expect.h"

namespace {

std::vector<uint8_t> encoded(const std::vector<uint64_t>& values) {
    std::vector<uint8_t> bytes;
    springtide::append_gaps(values.data(), values.size(), bytes);
    return bytes;
}

// The defect, "" if there is none; sets `values`.
std::string read(const std::vector<uint8_t>& bytes, std::vector<uint64_t>& values) {
    values.resize(springtide::count_gaps(bytes.data(), bytes.size()));
    const char* defect = springtide::read_gaps(bytes.data(), bytes.size(), values.data());
    return defect == nullptr ? "" : defect;
}

void gaps_of_every_length_survive_a_round_trip() {
    expect(encoded({3, 4, 300}) == std::vector<uint8_t>({0x03, 0x01, 0xa8, 0x02}), "golden");
    std::vector<uint64_t> values, found;
    for (unsigned shift = 0; shift < 64; ++shift) values.push_back(uint64_t{1} << shift);
    values.push_back(~uint64_t{0});
    expect(read(encoded(values), found).empty() && found == values, "round trip");
}

void arbitrary_bytes_are_decoded_or_rejected_in_bounds() {
    std::mt19937_64 random(1);
    std::vector<uint64_t> values;
    for (int turn = 0; turn < 20'000; ++turn) {
        std::vector<uint8_t> bytes(random() % 24);
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 4 ? 0x80 | random() : random());
        if (read(bytes, values).empty()) expect(std::is_sorted(values.begin(), values.end()), "ascending");
    }
    expect(read(std::vector<uint8_t>(11, 0x80), values) == "have a gap of more than 10 bytes", "too long");
}

}  // namespace

int main() {
    gaps_of_every_length_survive_a_round_trip();
    arbitrary_bytes_are_decoded_or_rejected_in_bounds();
}
