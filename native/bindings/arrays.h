// Array arguments and results: exact dtype, C order, on the CPU, never converted.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace springtide_bindings {

namespace nb = nanobind;

template <typename T>
using In = nb::ndarray<const T, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using InRows = nb::ndarray<const T, nb::numpy, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
// Rows with any stride, such as the weights column of packed rows.
template <typename T>
using InStrided = nb::ndarray<const T, nb::numpy, nb::ndim<2>, nb::device::cpu>;
template <typename T>
using Out = nb::ndarray<T, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using OutRows = nb::ndarray<T, nb::numpy, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// An argument that nanobind must not convert.
inline auto exact(const char* name) { return nb::arg(name).noconvert(); }

template <typename T>
std::span<const T> span_of(const In<T>& array) {
    return {array.data(), array.size()};
}

inline nb::bytes bytes_of(const std::vector<uint8_t>& bytes) { return nb::bytes(bytes.data(), bytes.size()); }

// A function bound with WithoutGil() runs without the GIL.
using WithoutGil = nb::call_guard<nb::gil_scoped_release>;

// Calls work() without the GIL.
template <typename Work>
auto without_gil(Work work) {
    nb::gil_scoped_release nogil;
    return work();
}

// Releases the GIL for work on many items. For few, the work is done before a thread that waits for the GIL has it, and to
// get it back takes a switch of threads.
class GilReleasedFor {
public:
    explicit GilReleasedFor(size_t items) {
        if (items >= kManyItems) released_.emplace();
    }

private:
    static constexpr size_t kManyItems = 1 << 13;  // some 100 microseconds of work

    std::optional<nb::gil_scoped_release> released_;
};

// A NumPy array that owns the memory of the vector. Requires the GIL.
template <typename T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> owned(std::vector<T>&& values) {
    auto* vector = new std::vector<T>(std::move(values));
    nb::capsule owner(vector, [](void* at) noexcept { delete static_cast<std::vector<T>*>(at); });
    return nb::ndarray<nb::numpy, T, nb::ndim<1>>(vector->data(), {vector->size()}, owner);
}

}  // namespace springtide_bindings
