// The rows of the join for pipeline/samples/held/rows.py, which checks arguments first. Rows are passed as bytes.
#include "join/join_rows.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "bindings/arrays.h"

using namespace springtide_bindings;
using namespace springtide;

namespace {

std::span<HeldRow> held(const Out<uint8_t>& rows) {
    return {reinterpret_cast<HeldRow*>(rows.data()), rows.size() / sizeof(HeldRow)};
}

std::span<const HeldRow> held(const In<uint8_t>& rows) {
    return {reinterpret_cast<const HeldRow*>(rows.data()), rows.size() / sizeof(HeldRow)};
}

void fill(InRows<uint64_t> ids, In<int64_t> at, In<int64_t> offsets, In<int32_t> rows, In<uint8_t> flags,
          int32_t partition, Out<uint8_t> out) {
    nb::gil_scoped_release nogil;
    fill_held({ids.data(), at.data(), offsets.data(), rows.data(), flags.data(), partition}, held(out));
}

nb::tuple extent(In<uint8_t> rows) {
    const Extent extent = without_gil([&] { return extent_of(held(rows)); });
    return nb::make_tuple(extent.lowest_at_ms, extent.latest_at_ms, extent.open, extent.lowest_offsets);
}

// (numbers of rows to emit, lowest time still open or None)
nb::tuple close_held(Out<uint8_t> rows, size_t start, size_t stop, int64_t until_ms, uint8_t excluded_flags,
                     std::optional<uint64_t> ids_below) {
    std::vector<int64_t> to_emit;
    const std::optional<int64_t> lowest = without_gil(
        [&] { return close_rows(held(rows), start, stop, until_ms, {excluded_flags, ids_below}, to_emit); });
    return nb::make_tuple(owned(std::move(to_emit)), lowest);
}

void sources(In<uint8_t> rows, In<int64_t> chosen, Out<int64_t> at, Out<int64_t> offsets, Out<int32_t> partitions,
             Out<int32_t> rows_out) {
    nb::gil_scoped_release nogil;
    gather_sources(held(rows), span_of(chosen), {at.data(), offsets.data(), partitions.data(), rows_out.data()});
}

void gather_held(In<uint64_t> places, const std::vector<In<uint8_t>>& chunks, Out<uint8_t> out) {
    std::vector<const HeldRow*> rows;
    for (const auto& chunk : chunks) rows.push_back(held(chunk).data());
    nb::gil_scoped_release nogil;
    gather_rows(span_of(places), rows.data(), held(out).data());
}

}  // namespace

void register_join_rows(nb::module_& m) {
    m.def("join_fill_held", &fill, exact("ids"), exact("at"), exact("offsets"), exact("rows"), exact("flags"),
          exact("partition"), exact("out"));
    m.def("join_extent", &extent, exact("rows"));
    m.def("join_close", &close_held, exact("rows"), exact("start"), exact("stop"), exact("until_ms"),
          exact("excluded_flags"), nb::arg("ids_below").none());
    m.def("join_sources", &sources, exact("rows"), exact("chosen"), exact("at"), exact("offsets"), exact("partitions"),
          exact("rows_out"));
    m.def("join_rows_at", &gather_held, exact("places"), exact("chunks"), exact("out"));
}
