// The rows of a delta without Python: grouping by precision and handle, and reordered payloads.
#include "serving/row_groups.h"

#include "tests/expect.h"
#include "wire/gaps.h"

namespace {

std::vector<uint8_t> encoded(const std::vector<uint64_t>& values) {
    std::vector<uint8_t> bytes;
    springtide::append_gaps(values.data(), values.size(), bytes);
    return bytes;
}

void rows_are_grouped_by_precision_and_handle() {
    const std::vector<uint32_t> handles = {9, 2}, new_handles = {11, 10};
    const std::vector<uint64_t> new_keys = {7, 5};
    const std::vector<uint8_t> bits = {16, 16, 16, 32}, payload = {1, 1, 2, 2, 3, 3, 4, 4, 4, 4};
    const auto groups = springtide::group_rows(
        {handles.data(), 2, new_keys.data(), new_handles.data(), 2, bits.data(), payload.data(), 1});
    expect(groups.size() == 2 && groups[0].bits == 16 && groups[1].bits == 32, "precisions");
    expect(groups[0].known == encoded({2, 9}) && groups[0].new_handles == encoded({11}), "handles");
    expect(groups[0].payload == std::vector<uint8_t>({2, 2, 1, 1, 3, 3}), "payload");
    expect(groups[1].known.empty() && groups[1].new_keys == std::vector<uint8_t>({5, 0, 0, 0, 0, 0, 0, 0}), "key");
    const std::vector<int64_t> order = {3, 0, 2, 1};
    expect(springtide::reorder_payload(payload.data(), bits.data(), order.data(), 4, 1) ==
               std::vector<uint8_t>({4, 4, 4, 4, 1, 1, 3, 3, 2, 2}),
           "reordered");
}

}  // namespace

int main() { rows_are_grouped_by_precision_and_handle(); }
