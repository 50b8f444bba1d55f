// Rows to be sent, for pipeline/publish/price/priced_rows.py, which checks lengths and precisions first.
#include "serving/sent_rows.h"

#include <utility>

#include "bindings/arrays.h"

using namespace springtide_bindings;

namespace {

springtide::RowsToSend rows_of(const InStrided<float>& rows, const InRows<float>& served,
                               const In<uint8_t>& served_bits, const In<int8_t>& served_exponents,
                               const In<float>& curvature, double unit) {
    return {rows.data(),      static_cast<size_t>(rows.stride(0)),
            served.data(),    served_bits.data(),
            served_exponents.data(), curvature.data(),
            unit,             served.shape(0),
            served.shape(1)};
}

}  // namespace

void register_sent_rows(nb::module_& m) {
    m.def(
        "score_rows",
        [](InStrided<float> rows, InRows<float> served, In<uint8_t> served_bits, In<int8_t> served_exponents,
           In<float> curvature, double unit, Out<bool> improves, Out<float> worth, Out<float> cost_bytes,
           Out<float> missing, Out<float> error) {
            const auto input = rows_of(rows, served, served_bits, served_exponents, curvature, unit);
            const springtide::ScoredRows scored{improves.data(), worth.data(), cost_bytes.data(),
                                                missing.data(),  error.data()};
            return without_gil([&] { return springtide::score_rows(input, scored); });
        },
        exact("rows"), exact("served"), exact("served_bits"), exact("served_exponents"), exact("curvature"),
        nb::arg("unit"), exact("improves"), exact("worth"), exact("cost_bytes"), exact("missing"),
        exact("error"));
    m.def(
        "encode_sent",
        [](InStrided<float> rows, InRows<float> served, In<uint8_t> served_bits, In<int8_t> served_exponents,
           In<float> curvature, double unit, Out<uint8_t> bits) {
            const auto input = rows_of(rows, served, served_bits, served_exponents, curvature, unit);
            std::vector<uint8_t> payload;
            const size_t finite = without_gil([&] { return springtide::encode_sent(input, bits.data(), payload); });
            return nb::make_tuple(finite, owned(std::move(payload)));
        },
        exact("rows"), exact("served"), exact("served_bits"), exact("served_exponents"), exact("curvature"),
        nb::arg("unit"), exact("bits"));
}
