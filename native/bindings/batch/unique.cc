// Uniquer for pipeline/trainer/batch/unique.py, which checks shapes first.
#include "batch/unique.h"

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::Uniquer;

void register_unique(nb::module_& m) {
    nb::class_<Uniquer>(m, "Uniquer")
        .def(nb::init<>())
        .def(
            "unique",
            [](Uniquer& self, In<uint64_t> keys, Out<uint64_t> distinct, Out<int32_t> inverse, Out<uint32_t> counts) {
                const GilReleasedFor nogil(keys.size());
                return self.unique({keys.data(), keys.size()}, distinct.data(), inverse.data(), counts.data());
            },
            exact("keys"), exact("distinct"), exact("inverse"), exact("counts"));
}
