// Row groups for pipeline/versions/deltas/row_groups.py, which checks lengths and precisions first.
#include "serving/row_groups.h"

#include <utility>

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::RowGroup;

namespace {

nb::dict dict_of(const RowGroup& group) {
    nb::dict record;
    record["bits"] = group.bits;
    record["known"] = bytes_of(group.known);
    record["new_handles"] = bytes_of(group.new_handles);
    record["new_keys"] = bytes_of(group.new_keys);
    record["payload"] = bytes_of(group.payload);
    return record;
}

}  // namespace

void register_row_groups(nb::module_& m) {
    m.def(
        "group_rows",
        [](In<uint32_t> handles, In<uint64_t> new_keys, In<uint32_t> new_handles, In<uint8_t> bits, In<uint8_t> payload,
           size_t dim) {
            const springtide::DeltaRows rows{handles.data(),     handles.size(), new_keys.data(), new_handles.data(),
                                             new_handles.size(), bits.data(),    payload.data(),  dim};
            nb::list records;
            for (const RowGroup& group : without_gil([&] { return springtide::group_rows(rows); }))
                records.append(dict_of(group));
            return records;
        },
        exact("handles"), exact("new_keys"), exact("new_handles"), exact("bits"), exact("payload"), exact("dim"));
    m.def(
        "reorder_payload",
        [](In<uint8_t> payload, In<uint8_t> bits, In<int64_t> order, size_t dim) {
            return owned(without_gil([&] {
                return springtide::reorder_payload(payload.data(), bits.data(), order.data(), order.size(), dim);
            }));
        },
        exact("payload"), exact("bits"), exact("order"), exact("dim"));
}
