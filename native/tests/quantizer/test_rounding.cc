// Rows trained for few bits: what training reads is what the payload decodes to, bit for bit, for rows of any size; the
// scales are those of the papers, as powers of two.
#include "quantizer/rounding.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "quantizer/quantizer.h"
#include "tests/expect.h"

namespace {

using springtide::Codec;
using springtide::grid_of;
using springtide::Rounding;
using springtide::RowGrid;

constexpr Rounding kAll[] = {Rounding::one_bit, Rounding::ternary, Rounding::two_bits, Rounding::four_bits,
                             Rounding::eight_bits};

std::vector<float> read(const std::vector<float>& row, Rounding rounding) {
    const RowGrid grid = grid_of(row.data(), row.size(), rounding);
    std::vector<float> values;
    for (const float weight : row) values.push_back(grid.value_of(weight));
    return values;
}

std::vector<float> served(const std::vector<float>& row, Rounding rounding) {
    std::vector<uint8_t> payload(springtide::payload_bytes(Codec::step8, row.size()));  // exact size
    springtide::write_rounded(row.data(), row.size(), rounding, payload.data());
    std::vector<float> values(row.size());
    springtide::decode_rows(Codec::step8, payload.data(), 1, row.size(), values.data());
    return values;
}

std::vector<std::vector<float>> rows() {
    constexpr float kMax = std::numeric_limits<float>::max(), kLeast = std::numeric_limits<float>::denorm_min();
    std::vector<std::vector<float>> rows = {{0, 0, 0}, {-0.0f}, {kMax, -kMax, kMax}, {kMax, kLeast}, {kLeast, -kLeast},
                                            {1, 0, -1}, {1e-30f, 1e30f}, {0.5f, 0.5f, 0.5f, -0.5f}};
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.01f, 0.05f);
    for (size_t dim = 1; dim <= 200; dim += dim < 40 ? 1 : 53)
        for (int repeat = 0; repeat < 3; ++repeat) {
            rows.emplace_back(dim);
            for (float& weight : rows.back()) weight = std::ldexp(normal(random), repeat * 40 - 40);
        }
    return rows;
}

void training_reads_what_serving_decodes() {
    for (const std::vector<float>& row : rows())
        for (const Rounding rounding : kAll) {
            const std::vector<float> trained = read(row, rounding), decoded = served(row, rounding);
            for (size_t i = 0; i < row.size(); ++i) {
                expect(std::bit_cast<uint32_t>(trained[i]) == std::bit_cast<uint32_t>(decoded[i]), "equal bits");
                expect(std::isfinite(trained[i]), "finite");
            }
        }
}

void fewer_bits_give_fewer_values() {
    for (const std::vector<float>& row : rows()) {
        const RowGrid sign = grid_of(row.data(), row.size(), Rounding::one_bit);
        const RowGrid three = grid_of(row.data(), row.size(), Rounding::ternary);
        for (const float weight : row) {
            const float one = sign.integer_of(weight), other = three.integer_of(weight);
            expect(std::abs(weight) < 0x1p-126f || one == (weight > 0 ? 1 : -1), "the sign");
            expect(other == 0 || other == (weight > 0 ? 1 : -1), "the sign or zero");
        }
    }
}

void scales_are_those_of_the_papers_as_powers_of_two() {
    const std::vector<float> row = {0.8f, -1.6f, 0.1f, 0.3f};  // mean magnitude 0.7; above 0.49 of it: 0.8 and 1.6
    expect(read(row, Rounding::one_bit) == std::vector<float>{0.5f, -0.5f, 0.5f, 0.5f}, "0.7 is nearest to 0.5");
    expect(read(row, Rounding::ternary) == std::vector<float>{1, -1, 0, 0}, "1.2 is nearest to 1");
    expect(read(row, Rounding::two_bits) == std::vector<float>{1, -2, 0, 0}, "a step of 1 for a root mean square of 0.9");
    expect(read({0.74f}, Rounding::one_bit) == std::vector<float>{0.5f}, "below the middle");
    expect(read({0.76f}, Rounding::one_bit) == std::vector<float>{1}, "above the middle");
    expect(read({-0.76f, 0}, Rounding::one_bit) == std::vector<float>{-0.5f, 0}, "zero has no sign");
}

void ties_are_rounded_to_even() {
    const RowGrid grid{0.25f, 4, 127};
    const float weights[] = {0.125f, 0.375f, -0.125f, -0.375f, 0.1251f}, values[] = {0, 0.5f, 0, -0.5f, 0.25f};
    for (size_t i = 0; i < 5; ++i) expect(grid.value_of(weights[i]) == values[i], "half to even");
    expect(!std::signbit(grid.value_of(-0.125f)), "no negative zero");
}

}  // namespace

int main() {
    training_reads_what_serving_decodes();
    fewer_bits_give_fewer_values();
    scales_are_those_of_the_papers_as_powers_of_two();
    ties_are_rounded_to_even();
}
