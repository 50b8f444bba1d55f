// The row codec without Python: halves, sizes to the byte, error bounds, and the widest floats there are.
#include "quantizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "expect.h"
#include "half.h"

namespace {

constexpr unsigned kPrecisions[] = {4, 8, 16, 32};

std::vector<float> round_trip(const std::vector<float>& row, unsigned bits) {
    std::vector<uint8_t> payload(freshet::payload_bytes(bits, row.size()));  // exactly: a byte too many is seen
    freshet::encode_rows(freshet::codec_of(bits), row.data(), 1, row.size(), payload.data());
    std::vector<float> out(row.size());
    freshet::decode_row(payload.data(), row.size(), bits, out.data());
    return out;
}

void every_half_survives_a_round_trip() {
    for (uint32_t half = 0; half < 0x10000; ++half) {
        if ((half & 0x7FFF) > freshet::kMostHalf) continue;  // infinities and NaNs
        const auto same = static_cast<uint16_t>(half);
        expect(freshet::to_half(freshet::from_half(same)) == same, "half to float to half");
    }
}

void halves_are_rounded_to_even_and_outwards() {
    for (uint16_t half = 0; half < freshet::kMostHalf; ++half) {
        const float low = freshet::from_half(half), high = freshet::from_half(half + 1), tie = low + (high - low) / 2;
        expect(freshet::to_half(tie) == half + (half & 1), "tie");
        expect(freshet::to_half(std::nextafter(tie, low)) == half, "below the tie");
        expect(freshet::to_half(std::nextafter(tie, high)) == half + 1, "above the tie");
        for (const float value : {low, tie, high, -low, -tie, -high}) {
            expect(freshet::from_half(freshet::to_half_down(value)) <= value, "down");
            expect(freshet::from_half(freshet::to_half_up(value)) >= value, "up");
        }
        expect(freshet::to_half_down(tie) == half && freshet::to_half_up(tie) == half + 1, "neighbours");
    }
    expect(freshet::to_half(1e9f) == freshet::kMostHalf && freshet::to_half_down(-1e9f) == 0xFBFF, "saturates");
}

void payloads_have_their_size_at_any_dim() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.1f, 0.05f);
    for (size_t dim = 1; dim <= 40; ++dim) {
        std::vector<float> row(dim);
        for (float& weight : row) weight = normal(random);
        const auto [least, greatest] = std::minmax_element(row.begin(), row.end());
        for (unsigned bits : kPrecisions) {
            const float step = bits == 4 ? (*greatest - *least) / 15 : 0.001f;
            const std::vector<float> out = round_trip(row, bits);
            for (size_t i = 0; i < dim; ++i) expect(std::abs(out[i] - row[i]) <= 2 * step + 0.001f, "close");
        }
    }
}

void the_widest_floats_stay_finite() {
    const float most = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
    const std::vector<std::vector<float>> rows = {
        {-most, most, 0, 1}, {most, most}, {-most, -most, most}, {least, -least, 0}, {65504, -65504, 65504, 65505}, {-0.0f}};
    for (const std::vector<float>& row : rows)
        for (unsigned bits : kPrecisions)
            for (float weight : round_trip(row, bits)) expect(std::isfinite(weight), "finite");
}

}  // namespace

int main() {
    every_half_survives_a_round_trip();
    halves_are_rounded_to_even_and_outwards();
    payloads_have_their_size_at_any_dim();
    the_widest_floats_stay_finite();
}
