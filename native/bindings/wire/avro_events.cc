// Decoding of Avro records to columns for pipeline/logs/events/avro_events.py, which checks the offsets first.
#include "wire/avro_events.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <utility>

#include "bindings/arrays.h"

using namespace springtide_bindings;

namespace {

// (times in ms, undecoded rows, per field (valid, bytes, ends, item ends, words))
nb::tuple decode_events(const std::vector<std::pair<int, bool>>& fields, uint32_t schema_id, In<int32_t> offsets,
                        In<uint8_t> values) {
    std::vector<springtide::AvroField> plan;
    for (const auto& [kind, list] : fields) plan.push_back({static_cast<springtide::AvroKind>(kind), list});
    auto events =
        without_gil([&] { return springtide::decode_events(plan, schema_id, span_of(offsets), values.data()); });
    nb::list columns;
    for (auto& column : events.columns)
        columns.append(nb::make_tuple(owned(std::move(column.valid)), owned(std::move(column.bytes)),
                                      owned(std::move(column.ends)), owned(std::move(column.item_ends)),
                                      owned(std::move(column.words))));
    return nb::make_tuple(owned(std::move(events.times_ms)), owned(std::move(events.undecoded)), columns);
}

}  // namespace

void register_avro_events(nb::module_& m) {
    m.def("decode_events", &decode_events, nb::arg("fields"), nb::arg("schema_id"), exact("offsets"), exact("values"));
}
