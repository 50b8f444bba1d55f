// The row codec for pipeline/versions/deltas/quantizer.py, which checks lengths, codecs and precisions first.
#include "quantizer/quantizer.h"

#include "bindings/arrays.h"
#include "quantizer/codebook.h"

using namespace springtide_bindings;

namespace {

// Rows of one codec.
void bind_rows(nb::module_& m) {
    m.def(
        "payload_bytes",
        [](uint8_t codec, size_t dim) { return springtide::payload_bytes(static_cast<springtide::Codec>(codec), dim); },
        exact("codec"), exact("dim"));
    m.def(
        "encode_rows",
        [](uint8_t codec, InRows<float> rows, OutRows<uint8_t> payloads) {
            nb::gil_scoped_release nogil;
            springtide::encode_rows(static_cast<springtide::Codec>(codec), rows.data(), rows.shape(0), rows.shape(1),
                                    payloads.data());
        },
        exact("codec"), exact("rows"), exact("payloads"));
    m.def(
        "decode_rows",
        [](uint8_t codec, InRows<uint8_t> payloads, OutRows<float> rows) {
            nb::gil_scoped_release nogil;
            springtide::decode_rows(static_cast<springtide::Codec>(codec), payloads.data(), rows.shape(0),
                                    rows.shape(1), rows.data());
        },
        exact("codec"), exact("payloads"), exact("rows"));
}

// Rows of several precisions, concatenated.
void bind_mixed(nb::module_& m) {
    m.def(
        "encode_mixed",
        [](InRows<float> rows, In<uint8_t> bits, In<int64_t> offsets, Out<uint8_t> payload) {
            nb::gil_scoped_release nogil;
            springtide::encode_mixed(rows.data(), rows.shape(0), rows.shape(1), bits.data(), offsets.data(),
                                     payload.data());
        },
        exact("rows"), exact("bits"), exact("offsets"), exact("payload"));
    m.def(
        "decode_mixed",
        [](In<uint8_t> payload, In<uint8_t> bits, In<int64_t> offsets, OutRows<float> rows) {
            nb::gil_scoped_release nogil;
            springtide::decode_mixed(payload.data(), offsets.data(), bits.data(), rows.shape(0), rows.shape(1),
                                     rows.data());
        },
        exact("payload"), exact("bits"), exact("offsets"), exact("rows"));
}

void bind_codebooks(nb::module_& m) {
    m.def(
        "encode_codebook",
        [](InRows<float> rows, unsigned bits, size_t entries, OutRows<uint8_t> payloads) {
            nb::gil_scoped_release nogil;
            springtide::encode_codebook(rows.data(), rows.shape(0), rows.shape(1), bits, entries, payloads.data());
        },
        exact("rows"), exact("bits"), exact("entries"), exact("payloads"));
}

}  // namespace

void register_quantizer(nb::module_& m) {
    bind_rows(m);
    bind_mixed(m);
    bind_codebooks(m);
}
