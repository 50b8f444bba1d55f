// Coded rows for pipeline/versions/deltas/coded_rows.py, which checks lengths and precisions first.
#include "serving/coded_rows.h"

#include <utility>
#include <vector>

#include "bindings/arrays.h"

using namespace springtide_bindings;

void register_coded_rows(nb::module_& m) {
    m.def(
        "code_rows",
        [](In<uint32_t> handles, In<bool> relative, In<uint64_t> new_keys, In<uint32_t> new_handles, In<uint8_t> bits,
           In<uint8_t> payload, In<uint64_t> removed, size_t dim) {
            const springtide::DeltaRows rows{handles.data(),     relative.data(), handles.size(), new_keys.data(),
                                             new_handles.data(), new_handles.size(), bits.data(), payload.data(),
                                             removed.data(),     removed.size(),  dim};
            return bytes_of(without_gil([&] { return springtide::code_rows(rows); }));
        },
        exact("handles"), exact("relative"), exact("new_keys"), exact("new_handles"), exact("bits"), exact("payload"),
        exact("removed"), exact("dim"));
    // [13] counts, in the order of the stream.
    m.def(
        "announced_rows",
        [](nb::bytes coded) {
            const auto counts = springtide::announced_rows(static_cast<const uint8_t*>(coded.data()), coded.size());
            std::vector<uint32_t> listed = {counts.removed};
            for (const auto& precision : counts.rows) listed.insert(listed.end(), precision.begin(), precision.end());
            return owned(std::move(listed));
        },
        nb::arg("coded"));
    // (defect or None, handles, relative, new_keys, new_handles, bits, payload, removed)
    m.def(
        "decode_coded_rows",
        [](nb::bytes coded, size_t dim) {
            springtide::DecodedRows rows;
            const auto* bytes = static_cast<const uint8_t*>(coded.data());
            const size_t size = coded.size();
            const char* defect = without_gil([&] { return springtide::decode_rows(bytes, size, dim, rows); });
            return nb::make_tuple(defect, owned(std::move(rows.handles)), owned(std::move(rows.relative)),
                                  owned(std::move(rows.new_keys)), owned(std::move(rows.new_handles)),
                                  owned(std::move(rows.bits)), owned(std::move(rows.payload)),
                                  owned(std::move(rows.removed)));
        },
        nb::arg("coded"), exact("dim"));
    m.def(
        "reorder_payload",
        [](In<uint8_t> payload, In<uint8_t> bits, In<int64_t> order, size_t dim) {
            return owned(without_gil([&] {
                return springtide::reorder_payload(payload.data(), bits.data(), order.data(), order.size(), dim);
            }));
        },
        exact("payload"), exact("bits"), exact("order"), exact("dim"));
}
