// The row codec without Python, at every SIMD level: halves, exact sizes, error bounds, the largest floats, and bytes
// that no encoder wrote.
#include "quantizer/quantizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "quantizer/codebook.h"
#include "quantizer/half.h"
#include "simd/simd.h"
#include "tests/expect.h"

namespace {

using springtide::Codec;

constexpr Codec kCodecs[] = {Codec::int2, Codec::int4, Codec::int8, Codec::bf16, Codec::fp16, Codec::fp32,
                            Codec::step4, Codec::step8, Codec::step16};

std::vector<uint8_t> encoded(const std::vector<float>& rows, size_t dim, Codec codec) {
    const size_t n = rows.size() / dim;
    std::vector<uint8_t> payloads(n * springtide::payload_bytes(codec, dim));  // exact size: an overrun is detected
    springtide::encode_rows(codec, rows.data(), n, dim, payloads.data());
    return payloads;
}

std::vector<float> round_trip(const std::vector<float>& rows, size_t dim, Codec codec) {
    std::vector<float> out(rows.size());
    springtide::decode_rows(codec, encoded(rows, dim, codec).data(), rows.size() / dim, dim, out.data());
    return out;
}

std::vector<float> normal_rows(size_t n, size_t dim) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.1f, 0.05f);
    std::vector<float> rows(n * dim);
    for (float& weight : rows) weight = normal(random);
    return rows;
}

void every_half_survives_a_round_trip() {
    for (uint32_t half = 0; half < 0x10000; ++half) {
        if ((half & 0x7FFF) > springtide::kMaxHalf) continue;  // infinities and NaNs
        const auto same = static_cast<uint16_t>(half);
        expect(springtide::to_half(springtide::from_half(same)) == same, "half to float to half");
    }
}

void halves_are_rounded_to_even() {
    for (uint16_t half = 0; half < springtide::kMaxHalf; ++half) {
        const float low = springtide::from_half(half), high = springtide::from_half(half + 1);
        const float tie = low + (high - low) / 2;
        expect(springtide::to_half(tie) == half + (half & 1), "tie");
        expect(springtide::to_half(std::nextafter(tie, low)) == half, "below the tie");
        expect(springtide::to_half(std::nextafter(tie, high)) == half + 1, "above the tie");
    }
    expect(springtide::to_half(1e9f) == springtide::kMaxHalf, "saturates");
}

// The largest error of a weight in a row with this range, before rounding.
float max_error(Codec codec, float range) {
    switch (codec) {
        case Codec::int2: return range;
        case Codec::int4: return range / 7;
        case Codec::step4: return 0.1f;
        case Codec::int8: return range / 255;
        default: return 0;
    }
}

void rows_decode_within_the_error_bound_at_any_dim() {
    for (size_t dim = 1; dim <= 70; ++dim) {
        for (const size_t n : {1, 3, 16, 21}) {
            const std::vector<float> rows = normal_rows(n, dim);
            const auto [least, greatest] = std::minmax_element(rows.begin(), rows.end());
            for (const Codec codec : kCodecs) {
                const std::vector<float> out = round_trip(rows, dim, codec);
                const float bound = max_error(codec, *greatest - *least) + 0.002f;
                for (size_t i = 0; i < rows.size(); ++i) expect(std::abs(out[i] - rows[i]) <= bound, "error bound");
            }
        }
    }
}

void mixed_batches_have_the_bytes_of_their_codecs() {
    constexpr size_t kDim = 5, kRows = 50;
    const std::vector<float> rows = normal_rows(kRows, kDim);
    std::vector<uint8_t> bits(kRows), wanted;
    std::vector<int64_t> offsets(kRows);
    for (size_t i = 0; i < kRows; ++i) {
        bits[i] = static_cast<uint8_t>(4u << (i * 7 % 4));
        offsets[i] = static_cast<int64_t>(wanted.size());
        const std::vector<float> row(rows.begin() + i * kDim, rows.begin() + (i + 1) * kDim);
        const std::vector<uint8_t> alone = encoded(row, kDim, springtide::codec_of(bits[i]));
        wanted.insert(wanted.end(), alone.begin(), alone.end());
    }
    std::vector<uint8_t> payload(wanted.size());
    springtide::encode_mixed(rows.data(), kRows, kDim, bits.data(), offsets.data(), payload.data());
    expect(payload == wanted, "mixed bytes");
}

void the_largest_floats_stay_finite() {
    const float max = std::numeric_limits<float>::max(), min = std::numeric_limits<float>::denorm_min();
    const std::vector<std::vector<float>> rows = {{-max, max, 0, 1}, {max, max},      {-max, -max, max},
                                                  {min, -min, 0},    {65504, -65504}, {65504, 65505},
                                                  {-1e9f, -2e9f},    {-0.0f}};
    for (const std::vector<float>& row : rows)
        for (const Codec codec : kCodecs)
            for (float weight : round_trip(row, row.size(), codec)) expect(std::isfinite(weight), "finite");
}

void codebooks_decode_within_a_bound() {
    for (const size_t dim : {1, 16, 33, 200}) {
        const std::vector<float> rows = normal_rows(100, dim);
        for (const Codec codec : {Codec::int2, Codec::int4, Codec::int8}) {
            const unsigned bits = codec == Codec::int2 ? 2 : codec == Codec::int4 ? 4 : 8;
            std::vector<uint8_t> payloads(100 * springtide::payload_bytes(codec, dim));
            springtide::encode_codebook(rows.data(), 100, dim, bits, 16, payloads.data());
            std::vector<float> out(rows.size());
            springtide::decode_rows(codec, payloads.data(), 100, dim, out.data());
            for (size_t i = 0; i < rows.size(); ++i) expect(std::abs(out[i] - rows[i]) < 0.3f, "error bound");
        }
    }
}

}  // namespace

int main() {
    every_half_survives_a_round_trip();
    halves_are_rounded_to_even();
    for (int level = 0; level <= static_cast<int>(springtide::simd::best_level()); ++level) {
        expect(springtide::simd::force_level(static_cast<springtide::simd::Level>(level)), "a supported level");
        rows_decode_within_the_error_bound_at_any_dim();
        mixed_batches_have_the_bytes_of_their_codecs();
        the_largest_floats_stay_finite();
        codebooks_decode_within_a_bound();
    }
}
