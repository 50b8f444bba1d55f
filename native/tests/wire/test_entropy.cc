// The entropy coder without Python: integers of every size and plain bits survive, in streams near their entropy.
#include "wire/entropy.h"

#include <cmath>
#include <random>

#include "tests/expect.h"

namespace {

using springtide::EntropyDecoder;
using springtide::EntropyEncoder;
using springtide::Scale;

std::vector<uint8_t> encoded(const std::vector<uint32_t>& values) {
    EntropyEncoder encoder;
    Scale scale;
    for (const uint32_t value : values) encoder.put(value, scale);
    std::vector<uint8_t> bytes;
    encoder.finish(bytes);
    return bytes;
}

void survives(const std::vector<uint32_t>& values) {
    const std::vector<uint8_t> bytes = encoded(values);  // exact size: an overrun is detected
    EntropyDecoder decoder(bytes.data(), bytes.data() + bytes.size());
    Scale scale;
    for (const uint32_t value : values) expect(decoder.take(scale) == value, "the same integer");
    expect(decoder.finished(), "everything is read");
}

void integers_of_every_size_survive() {
    std::vector<uint32_t> values = {0, 0xffffffff, 0, 0xffffffff};
    for (unsigned width = 0; width < 32; ++width)
        for (const uint32_t near : {0u, 1u, 2u}) values.push_back((1u << width) - 1 + near);
    survives(values);
    std::mt19937 random(1);
    for (unsigned width = 1; width <= 32; ++width) {
        std::vector<uint32_t> some(2'000);
        for (uint32_t& value : some) value = static_cast<uint32_t>(random()) >> (32 - width);
        survives(some);
    }
    survives({});
}

void plain_bits_survive() {
    std::mt19937_64 random(2);
    EntropyEncoder encoder;
    std::vector<uint64_t> values;
    for (unsigned count = 0; count <= 64; ++count) {
        values.push_back(count == 0 ? 0 : random() >> (64 - count));
        encoder.put_bits(values.back(), count);
    }
    std::vector<uint8_t> bytes;
    encoder.finish(bytes);
    EntropyDecoder decoder(bytes.data(), bytes.data() + bytes.size());
    for (unsigned count = 0; count <= 64; ++count) expect(decoder.take_bits(count) == values[count], "the same bits");
    expect(decoder.finished(), "everything is read");
}

void geometric_integers_cost_about_their_entropy() {
    std::mt19937 random(3);
    for (const double mean : {0.1, 0.5, 1.0, 3.0, 10.0, 100.0, 5'000.0}) {
        std::geometric_distribution<uint32_t> draw(1 / (1 + mean));
        std::vector<uint32_t> values(50'000);
        for (uint32_t& value : values) value = draw(random);
        const double p = 1 / (1 + mean);
        const double entropy = (-(1 - p) * std::log2(1 - p) - p * std::log2(p)) / p;
        const double bits = 8.0 * static_cast<double>(encoded(values).size()) / 50'000;
        expect(bits < 1.1 * entropy + 0.05, "near the entropy");
    }
}

void frequencies_fill_every_table() {
    const springtide::EntropyTables& tables = springtide::entropy_tables();
    for (const springtide::BandTable& table : tables.bands) {
        unsigned sum = 0;
        for (unsigned s = 0; s < springtide::kSymbols; ++s) {
            const auto [freq, start] = table.shares[s];
            expect(freq > 0 && start == sum, "no symbol without a slot");
            expect(freq <= 15 * 256, "a symbol takes at least 0.09 bits");
            expect(table.symbols[start] == s && table.symbols[start + freq - 1u] == s, "its slots");
            sum += freq;
        }
        expect(sum == 1u << springtide::kSlotBits, "all slots");
    }
}

void an_integer_takes_at_least_its_share_of_a_bit() {
    for (const size_t count : {1u, 100u, 10'000u, 1'000'000u}) {
        const size_t bits = 8 * encoded(std::vector<uint32_t>(count, 0)).size();
        expect(count / springtide::kMostPerBit <= bits, "the cheapest integers");
    }
}

void a_stream_that_is_cut_off_is_not_finished() {
    const std::vector<uint8_t> bytes = encoded(std::vector<uint32_t>(500, 77));
    for (size_t length = 0; length < bytes.size(); ++length) {
        const std::vector<uint8_t> cut(bytes.begin(), bytes.begin() + static_cast<long>(length));
        EntropyDecoder decoder(cut.data(), cut.data() + cut.size());
        Scale scale;
        for (int i = 0; i < 500; ++i) (void)decoder.take(scale);
        expect(!decoder.finished(), "cut off");
    }
}

}  // namespace

int main() {
    integers_of_every_size_survive();
    plain_bits_survive();
    geometric_integers_cost_about_their_entropy();
    frequencies_fill_every_table();
    an_integer_takes_at_least_its_share_of_a_bit();
    a_stream_that_is_cut_off_is_not_finished();
}
