// The row codec for pipeline/versions/quantizer.py, which checks lengths and precisions first.
#include "quantizer.h"

#include "arrays.h"

using namespace freshet_bindings;

void register_quantizer(nb::module_& m) {
    m.def("payload_bytes", &freshet::payload_bytes, exact("bits"), exact("dim"));
    m.def(
        "encode",
        [](InRows<float> rows, In<uint8_t> bits, In<int64_t> offsets, Out<uint8_t> payload) {
            nb::gil_scoped_release nogil;
            const size_t n = rows.shape(0), dim = rows.shape(1);
            for (size_t i = 0; i < n; ++i)
                freshet::encode_row(rows.data() + i * dim, dim, bits.data()[i], payload.data() + offsets.data()[i]);
        },
        exact("rows"), exact("bits"), exact("offsets"), exact("payload"));
    m.def(
        "decode",
        [](In<uint8_t> payload, In<uint8_t> bits, In<int64_t> offsets, OutRows<float> rows) {
            nb::gil_scoped_release nogil;
            const size_t n = rows.shape(0), dim = rows.shape(1);
            for (size_t i = 0; i < n; ++i)
                freshet::decode_row(payload.data() + offsets.data()[i], dim, bits.data()[i], rows.data() + i * dim);
        },
        exact("payload"), exact("bits"), exact("offsets"), exact("rows"));
}
