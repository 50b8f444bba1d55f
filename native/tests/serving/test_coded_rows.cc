// The rows of a delta without Python: they survive in one order, and reordered payloads.
#include "serving/coded_rows.h"

#include "tests/expect.h"

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
    payloads_are_reordered();
}
