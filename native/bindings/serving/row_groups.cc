// Gaps and row groups for pipeline/formats/gaps.py and row_groups.py, which check lengths and precisions first.
#include "serving/row_groups.h"

#include <string>
#include <utility>

#include "bindings/arrays.h"
#include "wire/gaps.h"

using namespace springtide_bindings;
using springtide::RowGroup;

namespace {

nb::bytes bytes_of(const std::vector<uint8_t>& bytes) { return nb::bytes(bytes.data(), bytes.size()); }

nb::dict dict_of(const RowGroup& group) {
    nb::dict record;
    record["bits"] = group.bits;
    record["known"] = bytes_of(group.known);
    record["new_handles"] = bytes_of(group.new_handles);
    record["new_keys"] = bytes_of(group.new_keys);
    record["payload"] = bytes_of(group.payload);
    return record;
}

void register_gaps(nb::module_& m) {
    m.def(
        "encode_gaps",
        [](In<uint64_t> values) {
            std::vector<uint8_t> spelled;
            {
                nb::gil_scoped_release nogil;
                springtide::append_gaps(values.data(), values.size(), spelled);
            }
            return bytes_of(spelled);
        },
        exact("values"));
    // What is wrong with the bytes, or None; and the numbers.
    m.def(
        "decode_gaps",
        [](nb::bytes spelled) {
            std::vector<uint64_t> values;
            const char* wrong;
            {
                nb::gil_scoped_release nogil;
                const auto* bytes = static_cast<const uint8_t*>(spelled.data());
                values.resize(springtide::count_gaps(bytes, spelled.size()));
                wrong = springtide::read_gaps(bytes, spelled.size(), values.data());
            }
            return nb::make_tuple(wrong, owned(std::move(values)));
        },
        exact("spelled"));
}

}  // namespace

void register_row_groups(nb::module_& m) {
    register_gaps(m);
    m.def(
        "group_rows",
        [](In<uint32_t> handles, In<uint64_t> new_keys, In<uint32_t> new_handles, In<uint8_t> bits, In<uint8_t> payload,
           size_t dim) {
            std::vector<RowGroup> groups;
            {
                nb::gil_scoped_release nogil;
                groups = springtide::group_rows({handles.data(), handles.size(), new_keys.data(), new_handles.data(),
                                              new_handles.size(), bits.data(), payload.data(), dim});
            }
            nb::list records;
            for (const RowGroup& group : groups) records.append(dict_of(group));
            return records;
        },
        exact("handles"), exact("new_keys"), exact("new_handles"), exact("bits"), exact("payload"), exact("dim"));
    m.def(
        "reorder_payload",
        [](In<uint8_t> payload, In<uint8_t> bits, In<int64_t> order, size_t dim) {
            std::vector<uint8_t> reordered;
            {
                nb::gil_scoped_release nogil;
                reordered = springtide::reorder_payload(payload.data(), bits.data(), order.data(), order.size(), dim);
            }
            return owned(std::move(reordered));
        },
        exact("payload"), exact("bits"), exact("order"), exact("dim"));
}
