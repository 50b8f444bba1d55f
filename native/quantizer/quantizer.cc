#include "quantizer/quantizer.h"

#include <algorithm>
#include <cstring>

#include "quantizer/lane_batch.h"

namespace springtide {
namespace {

constexpr size_t kGridBytes = sizeof(uint32_t);

// Encodes rows with one grid per row, in batches for the kernels of one code width.
class GridRows {
public:
    GridRows(const QuantizerKernels& kernels, unsigned bits, size_t dim, TransposedRows& transposed)
        : kernels_(kernels),
          codes_(code_kernels(kernels, bits)),
          dim_(dim),
          transposed_(transposed),
          batch_(kernels.lanes) {}

    void add(const float* row, uint8_t* payload) {
        batch_.add(row, payload, [this](auto rows, auto payloads) { encode(rows, payloads); });
    }
    void finish() {
        batch_.finish([this](auto rows, auto payloads) { encode(rows, payloads); });
    }

private:
    void encode(const float* const* rows, uint8_t* const* payloads) {
        uint32_t grids[16];
        uint8_t* codes[16];
        kernels_.transpose(rows, dim_, transposed_.data());
        codes_.fit(transposed_.data(), dim_, grids);
        for (size_t lane = 0; lane < kernels_.lanes; ++lane) {
            std::memcpy(payloads[lane], &grids[lane], kGridBytes);
            codes[lane] = payloads[lane] + kGridBytes;
        }
        codes_.write(transposed_.data(), dim_, grids, codes);
    }

    const QuantizerKernels& kernels_;
    const CodeKernels& codes_;
    const size_t dim_;
    TransposedRows& transposed_;
    LaneBatch<uint8_t*> batch_;
};

unsigned bits_of(Codec codec) { return codec == Codec::int2 ? 2 : codec == Codec::int4 ? 4 : 8; }

bool is_step(Codec codec) { return codec == Codec::step4 || codec == Codec::step8 || codec == Codec::step16; }
unsigned step_bits(Codec codec) { return codec == Codec::step4 ? 4 : codec == Codec::step8 ? 8 : 16; }

}  // namespace

const QuantizerKernels& quantizer_kernels() {
    return simd::at_level([](auto level) -> const QuantizerKernels& { return quantizer_kernels(level); });
}

const CodeKernels& code_kernels(const QuantizerKernels& kernels, unsigned bits) {
    return bits == 2 ? kernels.two_bits : bits == 4 ? kernels.four_bits : kernels.eight_bits;
}

void encode_rows(Codec codec, const float* rows, size_t n, size_t dim, uint8_t* payloads) {
    const QuantizerKernels& kernels = quantizer_kernels();
    if (codec == Codec::fp32) {
        std::copy_n(reinterpret_cast<const uint8_t*>(rows), n * dim * sizeof(float), payloads);
    } else if (codec == Codec::fp16) {
        kernels.to_halves(rows, n * dim, payloads);
    } else if (codec == Codec::bf16) {
        kernels.to_bfloats(rows, n * dim, payloads);
    } else if (is_step(codec)) {
        const unsigned bits = step_bits(codec);
        for (size_t i = 0; i < n; ++i, rows += dim, payloads += integer_bytes(bits, dim))
            write_integers(rows, dim, bits, exponent_of(rows, dim, bits), payloads);
    } else {
        TransposedRows transposed(dim);
        GridRows batch(kernels, bits_of(codec), dim, transposed);
        const size_t bytes = payload_bytes(codec, dim);
        for (size_t i = 0; i < n; ++i) batch.add(rows + i * dim, payloads + i * bytes);
        batch.finish();
    }
}

void decode_rows(Codec codec, const uint8_t* payloads, size_t n, size_t dim, float* rows) {
    const QuantizerKernels& kernels = quantizer_kernels();
    if (is_step(codec)) {
        const unsigned bits = step_bits(codec);
        for (size_t i = 0; i < n; ++i, rows += dim, payloads += integer_bytes(bits, dim))
            read_integers(payloads, dim, bits, rows);
    } else if (codec == Codec::fp32) std::copy_n(payloads, n * dim * sizeof(float), reinterpret_cast<uint8_t*>(rows));
    else if (codec == Codec::fp16) kernels.from_halves(payloads, n * dim, rows);
    else if (codec == Codec::bf16) kernels.from_bfloats(payloads, n * dim, rows);
    else code_kernels(kernels, bits_of(codec)).read_all(payloads, n, dim, rows);
}

void encode_mixed(const float* rows, size_t n, size_t dim, const uint8_t* bits, const int64_t* offsets,
                  uint8_t* payload) {
    for (size_t i = 0; i < n; ++i) encode_row(rows + i * dim, dim, bits[i], payload + offsets[i]);
}

void decode_mixed(const uint8_t* payload, const int64_t* offsets, const uint8_t* bits, size_t n, size_t dim,
                  float* rows) {
    for (size_t i = 0; i < n; ++i) decode_row(payload + offsets[i], dim, bits[i], rows + i * dim);
}

void encode_row(const float* row, size_t dim, unsigned bits, uint8_t* payload) {
    encode_rows(codec_of(bits), row, 1, dim, payload);
}

void decode_row(const uint8_t* payload, size_t dim, unsigned bits, float* row) {
    decode_rows(codec_of(bits), payload, 1, dim, row);
}

}  // namespace springtide
