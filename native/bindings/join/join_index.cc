// JoinIndex for pipeline/samples/held/index.py, which checks arguments first.
#include "join/join_index.h"

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::JoinIndex;

void register_join_index(nb::module_& m) {
    nb::class_<JoinIndex>(m, "JoinIndex")
        .def(nb::init<>())
        .def_prop_ro("size", &JoinIndex::size)
        .def_prop_ro("memory_bytes", &JoinIndex::memory_bytes)
        .def("reserve", &JoinIndex::reserve, exact("n"), WithoutGil())
        .def(
            "insert",
            [](JoinIndex& self, InRows<uint64_t> ids, In<uint64_t> places, Out<uint64_t> out) {
                nb::gil_scoped_release nogil;
                self.insert(ids.data(), places.data(), places.size(), out.data());
            },
            exact("ids"), exact("places"), exact("out"))
        .def(
            "match",
            [](const JoinIndex& self, InRows<uint64_t> ids, Out<uint64_t> out) {
                nb::gil_scoped_release nogil;
                self.match(ids.data(), out.size(), out.data());
            },
            exact("ids"), exact("out"))
        .def(
            "remove",
            [](JoinIndex& self, InRows<uint64_t> ids) {
                nb::gil_scoped_release nogil;
                return self.remove(ids.data(), ids.shape(0));
            },
            exact("ids"))
        .def("remove_bucket", &JoinIndex::remove_bucket, exact("number"), WithoutGil());
}
