// The rows of a delta without Python: they survive in one order, and reordered payloads.
#include "serving/coded_rows.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "tests/expect.h"
#include "wire/entropy.h"

namespace {

void rows_are_sorted_by_precision_kind_and_handle_or_key() {
    const std::vector<uint32_t> handles = {9, 2, 4}, new_handles = {11, 10};
    const bool relative[] = {true, false, true};
    const std::vector<uint64_t> new_keys = {7, 5}, removed = {3, 1};
    const std::vector<uint8_t> bits = {8, 8, 8, 8, 32};
    const std::vector<uint8_t> payload = {0, 1, 200, 2, 0, 3, 4, 4, 5, 5, 5, 5};
    const std::vector<uint8_t> coded = springtide::code_rows({handles.data(), relative, 3, new_keys.data(),
                                                              new_handles.data(), 2, bits.data(), payload.data(),
                                                              removed.data(), 2, 1});
    springtide::DecodedRows rows;
    expect(springtide::decode_rows(coded.data(), coded.size(), 1, rows) == nullptr, "valid");
    expect(rows.handles == std::vector<uint32_t>({4, 9, 2}), "handles");
    expect(rows.relative == std::vector<uint8_t>({1, 1, 0}), "differences first");
    expect(rows.new_keys == std::vector<uint64_t>({7, 5}) && rows.new_handles == new_handles, "new rows by precision");
    expect(rows.bits == bits, "bits");
    expect(rows.payload == std::vector<uint8_t>({0, 3, 0, 1, 200, 2, 4, 4, 5, 5, 5, 5}), "payload");
    expect(rows.removed == std::vector<uint64_t>({1, 3}), "removed");
}

std::vector<uint8_t> announcing(uint32_t removed, size_t place, uint32_t rows) {
    springtide::EntropyEncoder encoder;
    springtide::Scale scale;
    encoder.put(removed, scale);
    for (size_t i = 0; i < 12; ++i) encoder.put(i == place ? rows : 0, scale);
    std::vector<uint8_t> stream;
    encoder.finish(stream);
    return stream;
}

void counts_that_a_stream_cannot_hold_take_no_memory() {
    for (const uint32_t count : {1'000u, 1u << 20, 0xffffffffu})
        for (size_t place = 0; place < 13; ++place) {
            const std::vector<uint8_t> stream = announcing(place == 12 ? count : 0, place, count);
            springtide::DecodedRows rows;
            const char* defect = springtide::decode_rows(stream.data(), stream.size(), 65'536, rows);
            expect(defect && std::strcmp(defect, "announce more rows than they can hold") == 0, "refused");
            expect(rows.handles.capacity() + rows.new_keys.capacity() + rows.removed.capacity() +
                           rows.payload.capacity() == 0,
                   "nothing is reserved");
        }
}

void the_cheapest_rows_are_not_refused() {
    constexpr size_t kRows = 20'000, kDim = 64;
    std::vector<uint32_t> handles(kRows);
    for (uint32_t i = 0; i < kRows; ++i) handles[i] = i;
    const auto relative = std::make_unique<bool[]>(kRows);
    std::fill_n(relative.get(), kRows, true);
    const std::vector<uint8_t> bits(kRows, 8), payload(kRows * (1 + kDim), 0);
    const std::vector<uint8_t> coded = springtide::code_rows(
        {handles.data(), relative.get(), kRows, nullptr, nullptr, 0, bits.data(), payload.data(), nullptr, 0, kDim});
    expect(springtide::announced_rows(coded.data(), coded.size()).rows[1][0] == kRows, "announced");
    springtide::DecodedRows rows;
    expect(springtide::decode_rows(coded.data(), coded.size(), kDim, rows) == nullptr, "valid");
    expect(rows.handles == handles && rows.payload == payload, "the same rows");
}

// Two new rows of 8 bits and dim 1 with the keys of two runs of one.
const char* defect_of_new_rows(uint32_t second_handle, uint64_t first_key, uint64_t second_key, uint32_t first_length) {
    springtide::EntropyEncoder encoder;
    springtide::Scale counts, handles, runs, lengths, exponents, weights;
    for (size_t i = 0; i < 13; ++i) encoder.put(i == 6 ? 2 : 0, counts);
    encoder.put(springtide::zigzag(5), handles);
    encoder.put(springtide::zigzag(static_cast<int32_t>(second_handle) - 6), handles);
    encoder.put(1, runs);
    encoder.put(first_length - 1, lengths);
    for (const uint64_t key : {first_key, second_key}) {
        springtide::Scale gaps;
        encoder.put(static_cast<uint32_t>(key >> 63), gaps);
        encoder.put_bits(key & ((uint64_t{1} << 63) - 1), 63);
    }
    for (int i = 0; i < 2; ++i) encoder.put(0, exponents);
    for (int i = 0; i < 2; ++i) encoder.put(0, weights);
    std::vector<uint8_t> stream;
    encoder.finish(stream);
    springtide::DecodedRows rows;
    return springtide::decode_rows(stream.data(), stream.size(), 1, rows);
}

void new_rows_come_in_the_order_of_their_handles() {
    expect(defect_of_new_rows(6, 9, 4, 1) == nullptr, "handles that ascend");
    expect(defect_of_new_rows(5, 4, 9, 1) == nullptr, "one handle, keys that ascend");
    expect(defect_of_new_rows(4, 4, 9, 1) != nullptr, "handles that do not");
    expect(defect_of_new_rows(5, 9, 4, 1) != nullptr, "one handle, keys that do not");
    expect(defect_of_new_rows(6, 9, 4, 2) != nullptr, "a run of all keys and another one");
}

void payloads_are_reordered() {
    const std::vector<uint8_t> bits = {16, 32, 8}, payload = {1, 1, 1, 2, 2, 2, 2, 3, 3};
    const std::vector<int64_t> order = {2, 0, 1};
    expect(springtide::reorder_payload(payload.data(), bits.data(), order.data(), 3, 1) ==
               std::vector<uint8_t>({3, 3, 1, 1, 1, 2, 2, 2, 2}),
           "reordered");
}

}  // namespace

int main() {
    rows_are_sorted_by_precision_kind_and_handle_or_key();
    counts_that_a_stream_cannot_hold_take_no_memory();
    the_cheapest_rows_are_not_refused();
    new_rows_come_in_the_order_of_their_handles();
    payloads_are_reordered();
}
