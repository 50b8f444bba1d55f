// Arbitrary bytes as gaps: decoded values ascend and survive a round trip. Grouping the rows of a delta keeps all rows.
#include "wire/gaps.h"

#include "fuzz/input.h"
#include "quantizer/quantizer.h"
#include "serving/row_groups.h"

namespace {

void read(const uint8_t* bytes, size_t size) {
    std::vector<uint64_t> values(springtide::count_gaps(bytes, size));
    if (springtide::read_gaps(bytes, size, values.data()) != nullptr) return;
    must(std::is_sorted(values.begin(), values.end()), "numbers ascend");
    std::vector<uint8_t> encoded;
    springtide::append_gaps(values.data(), values.size(), encoded);
    must(encoded.size() <= size, "the encoding is the shortest");
    std::vector<uint64_t> again(springtide::count_gaps(encoded.data(), encoded.size()));
    must(springtide::read_gaps(encoded.data(), encoded.size(), again.data()) == nullptr, "the encoding is valid");
    must(again == values, "the same numbers");
}

void group(Input& input) {
    const size_t known = input.take_size(20), fresh = input.take_size(20), dim = 1 + input.take_size(20);
    const auto handles = input.take_many<uint32_t>(known), new_handles = input.take_many<uint32_t>(fresh);
    const auto new_keys = input.take_many<uint64_t>(fresh);
    auto bits = input.take_many<uint8_t>(known + fresh);
    size_t bytes = 0;
    for (uint8_t& each : bits) {
        each = static_cast<uint8_t>(4u << each % 4);
        bytes += springtide::payload_bytes(each, dim);
    }
    const auto payload = input.take_many<uint8_t>(bytes);
    const springtide::DeltaRows delta{handles.data(), known,       new_keys.data(), new_handles.data(),
                                      fresh,          bits.data(), payload.data(),  dim};
    size_t found = 0, rows = 0;
    for (const springtide::RowGroup& each : springtide::group_rows(delta)) {
        found += each.payload.size();
        rows += springtide::count_gaps(each.known.data(), each.known.size());
        rows += springtide::count_gaps(each.new_handles.data(), each.new_handles.size());
    }
    must(found == bytes && rows == known + fresh, "no row is lost");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    read(bytes, size);
    Input input(bytes, size);
    group(input);
    return 0;
}
