// Rows in the format they are trained for, for pipeline/versions/deltas/rounding.py, which checks shapes first.
#include "quantizer/rounding.h"

#include "bindings/arrays.h"
#include "bindings/quantizer/rounding_number.h"

using namespace springtide_bindings;

void register_rounding(nb::module_& m) {
    m.def(
        "encode_rounded",
        [](InStrided<float> rows, unsigned number, OutRows<uint8_t> payloads) {
            const springtide::Rounding rounding = rounding_of(number);
            nb::gil_scoped_release nogil;
            const float* row = rows.data();
            uint8_t* payload = payloads.data();
            for (size_t i = 0; i < rows.shape(0); ++i, row += rows.stride(0), payload += payloads.shape(1))
                springtide::write_rounded(row, rows.shape(1), rounding, payload);
        },
        exact("rows"), exact("rounding"), exact("payloads"));
}
