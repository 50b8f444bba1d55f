// ServedView for pipeline/versions/deltas/served_view.py, which checks lengths and precisions first.
#include "serving/served_view.h"

#include <utility>

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::ServedView;

namespace {

void bind_row_queries(nb::class_<ServedView>& view) {
    view.def(
            "decode",
            [](const ServedView& self, In<uint64_t> keys, OutRows<float> rows) {
                nb::gil_scoped_release nogil;
                self.decode(keys.data(), keys.size(), rows.data());
            },
            exact("keys"), exact("rows"))
        .def(
            "compare",
            [](const ServedView& self, In<uint64_t> keys, InStrided<float> rows, Out<float> moved, Out<float> length,
               Out<uint8_t> bits, Out<bool> differs) {
                nb::gil_scoped_release nogil;
                self.compare(keys.data(), keys.size(), rows.data(), static_cast<size_t>(rows.stride(0)), moved.data(),
                             length.data(), bits.data(), differs.data());
            },
            exact("keys"), exact("rows"), exact("moved"), exact("length"), exact("bits"), exact("differs"))
        .def(
            "read",
            [](const ServedView& self, In<uint64_t> keys, OutRows<float> rows, Out<uint8_t> bits,
               Out<uint32_t> handles) {
                nb::gil_scoped_release nogil;
                self.read(keys.data(), keys.size(), rows.data(), bits.data(), handles.data());
            },
            exact("keys"), exact("rows"), exact("bits"), exact("handles"))
        .def(
            "bits",
            [](const ServedView& self, In<uint64_t> keys, Out<uint8_t> bits) {
                nb::gil_scoped_release nogil;
                self.bits(keys.data(), keys.size(), bits.data());
            },
            exact("keys"), exact("bits"))
        .def(
            "exponents",
            [](const ServedView& self, In<uint64_t> keys, Out<int8_t> exponents) {
                nb::gil_scoped_release nogil;
                self.exponents(keys.data(), keys.size(), exponents.data());
            },
            exact("keys"), exact("exponents"))
        .def(
            "differences",
            [](const ServedView& self, In<uint64_t> keys, In<uint8_t> bits, Out<uint8_t> payload, Out<bool> relative) {
                nb::gil_scoped_release nogil;
                self.differences(keys.data(), bits.data(), keys.size(), payload.data(), relative.data());
            },
            exact("keys"), exact("bits"), exact("payload"), exact("relative"));
}

void bind_handle_queries(nb::class_<ServedView>& view) {
    view.def(
            "handles",
            [](const ServedView& self, In<uint64_t> keys, Out<uint32_t> handles) {
                nb::gil_scoped_release nogil;
                self.handles(keys.data(), keys.size(), handles.data());
            },
            exact("keys"), exact("handles"))
        .def(
            "keys_of",
            [](const ServedView& self, In<uint32_t> handles, Out<uint64_t> keys, Out<bool> known) {
                nb::gil_scoped_release nogil;
                self.keys_of(handles.data(), handles.size(), keys.data(), known.data());
            },
            exact("handles"), exact("keys"), exact("known"));
}

// A change, and what stage() found of it. The arrays of the change belong to the caller, which keeps them.
struct StagedChange {
    springtide::DeltaRows rows;
    ServedView::Staged staged;
};

void bind_changes(nb::module_& m, nb::class_<ServedView>& view) {
    using Defect = ServedView::Staged::Defect;
    nb::enum_<Defect>(m, "StageDefect")
        .value("NONE", Defect::kNone)
        .value("UNKNOWN_HANDLE", Defect::kUnknownHandle)
        .value("NO_DIFFERENCE", Defect::kNoDifference)
        .value("HANDLE_IN_USE", Defect::kHandleInUse);
    nb::class_<StagedChange>(m, "StagedChange")
        .def_prop_ro("defect", [](const StagedChange& self) { return self.staged.defect; })
        .def_prop_ro("at", [](const StagedChange& self) { return self.staged.at; })
        .def_prop_ro("digest", [](const StagedChange& self) { return self.staged.digest; });
    view.def(
            "stage",
            [](const ServedView& self, In<uint32_t> handles, In<bool> relative, In<uint64_t> new_keys,
               In<uint32_t> new_handles, In<uint8_t> bits, In<uint8_t> payload, In<uint64_t> removed) {
                const springtide::DeltaRows rows{handles.data(),  relative.data(), handles.size(), new_keys.data(),
                                                 new_handles.data(), new_keys.size(), bits.data(), payload.data(),
                                                 removed.data(),  removed.size(),  self.dim()};
                return without_gil([&] { return StagedChange{rows, self.stage(rows)}; });
            },
            exact("handles"), exact("relative"), exact("new_keys"), exact("new_handles"), exact("bits"),
            exact("payload"), exact("removed"), nb::keep_alive<0, 2>(), nb::keep_alive<0, 3>(), nb::keep_alive<0, 4>(),
            nb::keep_alive<0, 5>(), nb::keep_alive<0, 6>(), nb::keep_alive<0, 8>())
        .def(
            "apply",
            [](ServedView& self, const StagedChange& change) {
                nb::gil_scoped_release nogil;
                return self.apply(change.rows, change.staged);
            },
            exact("change"));
}

void bind_state_queries(nb::class_<ServedView>& view) {
    view.def("keys",
             [](const ServedView& self) { return owned(without_gil([&] { return self.keys(); })); })
        .def(
            "export_rows",
            [](const ServedView& self, In<uint64_t> keys) {
                auto rows = without_gil([&] { return self.export_rows(keys.data(), keys.size()); });
                return nb::make_tuple(owned(std::move(rows.handles)), owned(std::move(rows.bits)),
                                      owned(std::move(rows.payload)));
            },
            exact("keys"));
}

}  // namespace

// All calls release the GIL, even short queries: they may wait for a writer that waits for the GIL.
void register_served_view(nb::module_& m) {
    nb::class_<ServedView> view(m, "ServedView");
    view.def(nb::init<size_t, bool>(), exact("dim"), exact("by_handle"))
        .def("digest", &ServedView::digest, WithoutGil())
        .def("size", &ServedView::size, WithoutGil())
        .def("payload_total", &ServedView::payload_total, WithoutGil())
        .def("memory_bytes", &ServedView::memory_bytes, WithoutGil())
        .def(
            "put",
            [](ServedView& self, In<uint64_t> keys, In<uint32_t> handles, In<uint8_t> bits, In<uint8_t> payload) {
                nb::gil_scoped_release nogil;
                return self.put(keys.data(), handles.data(), bits.data(), payload.data(), keys.size());
            },
            exact("keys"), exact("handles"), exact("bits"), exact("payload"))
        .def(
            "remove",
            [](ServedView& self, In<uint64_t> keys) {
                nb::gil_scoped_release nogil;
                return self.remove(keys.data(), keys.size());
            },
            exact("keys"));
    bind_row_queries(view);
    bind_handle_queries(view);
    bind_changes(m, view);
    bind_state_queries(view);
}
