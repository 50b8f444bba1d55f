// Pooling for Python; the face is pipeline/trainer/pooling.py, which checks shapes that belong together.
#include "pooling.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <utility>

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T>
using In1 = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutFloats = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using WithoutGil = nb::call_guard<nb::gil_scoped_release>;

template <class T>
std::span<const T> span_of(const In1<T>& array) {
    return {array.data(), array.shape(0)};
}

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> hand_over(std::vector<T>&& values) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return {kept->data(), {kept->size()}, owner};
}

nb::tuple unique(In1<uint64_t> keys) {
    freshet::Unique result;
    {
        nb::gil_scoped_release release;
        result = freshet::unique(span_of(keys));
    }
    return nb::make_tuple(hand_over(std::move(result.keys)), hand_over(std::move(result.inverse)),
                          hand_over(std::move(result.counts)));
}

void pool(Floats rows, In1<int32_t> inverse, In1<int64_t> offsets, bool mean, OutFloats out, size_t start) {
    freshet::pool({span_of(inverse), span_of(offsets), rows.shape(0), rows.shape(1), mean}, rows.data(), out.data(),
                  out.shape(1), start);
}

void unpool(Floats pooled, size_t start, In1<int32_t> inverse, In1<int64_t> offsets, bool mean, OutFloats gradients) {
    freshet::unpool({span_of(inverse), span_of(offsets), gradients.shape(0), gradients.shape(1), mean}, pooled.data(),
                    pooled.shape(1), start, gradients.data());
}

}  // namespace

void register_pooling(nb::module_& m) {
    m.def("unique", &unique, "keys"_a.noconvert());
    m.def("pool", &pool, "rows"_a.noconvert(), "inverse"_a.noconvert(), "offsets"_a.noconvert(), "mean"_a,
          "out"_a.noconvert(), "start"_a, WithoutGil());
    m.def("unpool", &unpool, "pooled"_a.noconvert(), "start"_a, "inverse"_a.noconvert(), "offsets"_a.noconvert(),
          "mean"_a, "gradients"_a.noconvert(), WithoutGil());
}
