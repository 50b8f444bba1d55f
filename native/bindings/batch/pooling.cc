// Pooling for pipeline/features/pooling.py, which checks that the shapes of arguments match.
#include "batch/pooling.h"

#include "bindings/arrays.h"

using namespace springtide_bindings;
using springtide::Columns;
using springtide::Pooling;

namespace {

void pool(InRows<float> rows, In<int32_t> inverse, In<int64_t> offsets, bool mean, OutRows<float> out, size_t start) {
    const Pooling pooling{span_of(inverse), span_of(offsets), rows.shape(0), rows.shape(1), mean};
    const Columns columns{out.shape(1), start};
    check(pooling, columns);
    springtide::pool(pooling, rows.data(), out.data(), columns);
}

void unpool(InRows<float> pooled, size_t start, In<int32_t> inverse, In<int64_t> offsets, bool mean,
            OutRows<float> gradients) {
    const Pooling pooling{span_of(inverse), span_of(offsets), gradients.shape(0), gradients.shape(1), mean};
    const Columns columns{pooled.shape(1), start};
    check(pooling, columns);
    springtide::unpool(pooling, pooled.data(), columns, gradients.data());
}

}  // namespace

void register_pooling(nb::module_& m) {
    m.def("pool", &pool, exact("rows"), exact("inverse"), exact("offsets"), exact("mean"), exact("out"), exact("start"),
          WithoutGil());
    m.def("unpool", &unpool, exact("pooled"), exact("start"), exact("inverse"), exact("offsets"), exact("mean"),
          exact("gradients"), WithoutGil());
}
