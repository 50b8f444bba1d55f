// Encoding of rows to be sent for pipeline/publish/precision.py, which checks lengths and precisions first.
#include "serving/sent_rows.h"

#include <utility>

#include "bindings/arrays.h"

using namespace springtide_bindings;

void register_sent_rows(nb::module_& m) {
    m.def(
        "encode_sent",
        [](InStrided<float> rows, InRows<float> served, In<uint8_t> served_bits, In<int8_t> served_exponents,
           In<uint8_t> warranted, float coarser_gain, Out<uint8_t> chosen) {
            const springtide::RowsToSend input{rows.data(),        static_cast<size_t>(rows.stride(0)),
                                               served.data(),      served_bits.data(),
                                               served_exponents.data(), warranted.data(),
                                               served.shape(0),    served.shape(1)};
            std::vector<uint8_t> payload;
            const size_t finite = without_gil(
                [&] { return springtide::encode_sent(input, coarser_gain, chosen.data(), payload); });
            return nb::make_tuple(finite, owned(std::move(payload)));
        },
        exact("rows"), exact("served"), exact("served_bits"), exact("served_exponents"), exact("warranted"),
        nb::arg("coarser_gain"),
        exact("chosen"));
}
