// Pooling for pipeline/features/pooling.py, which checks that the shapes of arguments match.
#include "batch/pooling.h"

#include <nanobind/stl/string.h>

#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/batch/pooling_kind.h"

using namespace springtide_bindings;
using springtide::Columns;
using springtide::FieldPooling;
using springtide::Pooling;

namespace {

void pool(InRows<float> rows, In<int32_t> inverse, In<int64_t> offsets, In<float> weights, const std::string& kind,
          size_t max_length, OutRows<float> out, size_t start) {
    const FieldPooling field{pooling_kind(kind), max_length};
    const Pooling pooling{span_of(inverse), span_of(offsets), rows.shape(0), rows.shape(1), field, span_of(weights)};
    const Columns columns{out.shape(1), start};
    check(pooling, columns);
    nb::gil_scoped_release nogil;
    springtide::pool(pooling, rows.data(), out.data(), columns);
}

void unpool(InRows<float> rows, InRows<float> pooled, size_t start, In<int32_t> inverse, In<int64_t> offsets,
            In<float> weights, const std::string& kind, size_t max_length, OutRows<float> gradients) {
    const FieldPooling field{pooling_kind(kind), max_length};
    const Pooling pooling{span_of(inverse), span_of(offsets), gradients.shape(0), gradients.shape(1), field,
                          span_of(weights)};
    if (rows.shape(0) != gradients.shape(0) || rows.shape(1) != gradients.shape(1))
        throw std::invalid_argument("rows: wrong shape");
    const Columns columns{pooled.shape(1), start};
    check(pooling, columns);
    std::vector<const float*> pointers;
    for (size_t k = 0; k < pooling.u; ++k) pointers.push_back(rows.data() + k * pooling.dim);
    springtide::unpool(pooling, pointers.data(), pooled.data(), columns, gradients.data());
}

}  // namespace

void register_pooling(nb::module_& m) {
    m.def("pool", &pool, exact("rows"), exact("inverse"), exact("offsets"), exact("weights"), exact("kind"),
          exact("max_length"), exact("out"), exact("start"));
    m.def("unpool", &unpool, exact("rows"), exact("pooled"), exact("start"), exact("inverse"), exact("offsets"),
          exact("weights"), exact("kind"), exact("max_length"), exact("gradients"));
}
