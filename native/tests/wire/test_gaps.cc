// Gaps and the rows of a delta, without Python: golden bytes, every length, no byte of any input read twice or outside.
#include "wire/gaps.h"

#include <algorithm>
#include <random>
#include <string>

#include "tests/expect.h"
#include "serving/row_groups.h"

namespace {

std::vector<uint8_t> spelled(const std::vector<uint64_t>& values) {
    std::vector<uint8_t> bytes;
    springtide::append_gaps(values.data(), values.size(), bytes);
    return bytes;
}

// What is wrong with the bytes, "" where nothing is; `values` gets the numbers.
std::string read(const std::vector<uint8_t>& bytes, std::vector<uint64_t>& values) {
    values.resize(springtide::count_gaps(bytes.data(), bytes.size()));
    const char* wrong = springtide::read_gaps(bytes.data(), bytes.size(), values.data());
    return wrong == nullptr ? "" : wrong;
}

void survives_at_every_length() {
    expect(spelled({3, 4, 300}) == std::vector<uint8_t>({0x03, 0x01, 0xa8, 0x02}), "golden");
    std::vector<uint64_t> values, found;
    for (unsigned shift = 0; shift < 64; ++shift) values.push_back(uint64_t{1} << shift);
    values.push_back(~uint64_t{0});
    expect(read(spelled(values), found).empty() && found == values, "round trip");
}

void refuses_any_damage_without_reading_outside() {
    std::mt19937_64 random(1);
    std::vector<uint64_t> values;
    for (int turn = 0; turn < 20'000; ++turn) {
        std::vector<uint8_t> bytes(random() % 24);
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 4 ? 0x80 | random() : random());
        if (read(bytes, values).empty()) expect(std::is_sorted(values.begin(), values.end()), "ascending");
    }
    expect(read(std::vector<uint8_t>(11, 0x80), values) == "have a gap of more than 10 bytes", "too long");
}

void rows_are_grouped_by_precision_and_handle() {
    const std::vector<uint32_t> handles = {9, 2}, new_handles = {11, 10};
    const std::vector<uint64_t> new_keys = {7, 5};
    const std::vector<uint8_t> bits = {16, 16, 16, 32}, payload = {1, 1, 2, 2, 3, 3, 4, 4, 4, 4};
    const auto groups = springtide::group_rows(
        {handles.data(), 2, new_keys.data(), new_handles.data(), 2, bits.data(), payload.data(), 1});
    expect(groups.size() == 2 && groups[0].bits == 16 && groups[1].bits == 32, "precisions");
    expect(groups[0].known == spelled({2, 9}) && groups[0].new_handles == spelled({11}), "handles");
    expect(groups[0].payload == std::vector<uint8_t>({2, 2, 1, 1, 3, 3}), "payload");
    expect(groups[1].known.empty() && groups[1].new_keys == std::vector<uint8_t>({5, 0, 0, 0, 0, 0, 0, 0}), "key");
    const std::vector<int64_t> order = {3, 0, 2, 1};
    expect(springtide::reorder_payload(payload.data(), bits.data(), order.data(), 4, 1) ==
               std::vector<uint8_t>({4, 4, 4, 4, 1, 1, 3, 3, 2, 2}),
           "reordered");
}

}  // namespace

int main() {
    survives_at_every_length();
    refuses_any_damage_without_reading_outside();
    rows_are_grouped_by_precision_and_handle();
}
