// CountingSketch for pipeline/admission/sketch.py, which checks arguments first.
#include "batch/sketch.h"

#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::CountingSketch;

void register_sketch(nb::module_& m) {
    nb::class_<CountingSketch>(m, "CountingSketch")
        .def(nb::init<uint64_t, uint32_t, uint64_t>(), exact("width"), exact("depth"), exact("seed"))
        .def_prop_ro("width", &CountingSketch::width)
        .def_prop_ro("depth", &CountingSketch::depth)
        .def_prop_ro("seed", &CountingSketch::seed)
        .def(
            "add",
            [](CountingSketch& self, In<uint64_t> keys, std::optional<In<uint32_t>> counts, Out<uint32_t> out) {
                const uint32_t* times = counts ? counts->data() : nullptr;
                nb::gil_scoped_release nogil;
                self.add(keys.data(), times, keys.size(), out.data());
            },
            exact("keys"), exact("counts").none(), exact("out"))
        .def(
            "estimate",
            [](const CountingSketch& self, In<uint64_t> keys, Out<uint32_t> out) {
                nb::gil_scoped_release nogil;
                self.estimate(keys.data(), keys.size(), out.data());
            },
            exact("keys"), exact("out"))
        .def("halve", &CountingSketch::halve, WithoutGil())
        .def("digest", &CountingSketch::digest, WithoutGil())
        .def("to_bytes", [](const CountingSketch& self) { return bytes_of(self.to_bytes()); })
        .def_static(
            "from_bytes",
            [](nb::bytes bytes) {
                auto sketch = CountingSketch::from_bytes(static_cast<const uint8_t*>(bytes.data()), bytes.size());
                if (!sketch) throw std::invalid_argument("not a counting sketch");
                return std::move(*sketch);
            },
            exact("bytes"));
}
