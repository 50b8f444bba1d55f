#include "wire/entropy.h"

#include <memory>

namespace springtide {
namespace {

constexpr uint32_t kBits = 1u << 31;
constexpr uint32_t kOne = 1 << 16;

// The means, in sixteenths, at which the bands begin, and the mean that the table of a band is made for.
constexpr std::array<uint8_t, kBands> kBandStarts = {0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192};

uint32_t times(uint32_t one, uint32_t other) {
    return static_cast<uint32_t>(static_cast<uint64_t>(one) * other >> 16);
}

// Adds weight * probability (of 2^16) of each symbol under a geometric distribution of `mean` sixteenths.
void add_geometric(uint32_t mean, uint32_t weight, std::array<uint32_t, kSymbols>& sums) {
    const uint32_t ratio = kOne * mean / (16 + mean);
    uint32_t at_least = kOne;  // the probability of h or more
    for (unsigned h = 0; h < kDirect; ++h) {
        const uint32_t more = times(at_least, ratio);
        sums[h] += weight * (at_least - more);
        at_least = more;
    }
    for (unsigned symbol = kDirect; symbol < kSymbols; ++symbol) {
        const uint32_t more = times(at_least, at_least);  // the bound doubles
        sums[symbol] += weight * (at_least - more);
        at_least = more;
    }
}

// A mixture of three geometric distributions, because a mean of few values is uncertain.
void fill(BandTable& table, uint32_t mean) {
    std::array<uint32_t, kSymbols> sums = {};
    add_geometric((mean + 1) / 2, 1, sums);
    add_geometric(mean, 2, sums);
    add_geometric(2 * mean, 1, sums);
    uint32_t first = 1u << kSlotBits;
    for (unsigned s = kSymbols; s-- > 0;) {
        const auto freq = s == 0 ? first : 1 + (sums[s] * uint64_t{(1u << kSlotBits) - kSymbols} >> 18);
        first -= static_cast<uint32_t>(freq);
        table.shares[s] = {static_cast<uint16_t>(freq), static_cast<uint16_t>(first)};
        std::fill_n(table.symbols.begin() + first, freq, static_cast<uint8_t>(s));
    }
}

uint32_t mean_of(unsigned band) {
    return band + 1 < kBands ? (kBandStarts[band] + kBandStarts[band + 1] + 1u) / 2 : 224u;
}

std::unique_ptr<const EntropyTables> make_tables() {
    auto tables = std::make_unique<EntropyTables>();
    for (unsigned band = 0; band < kBands; ++band) {
        fill(tables->bands[band], mean_of(band));
        std::fill(tables->of_mean.begin() + kBandStarts[band], tables->of_mean.end(), &tables->bands[band]);
    }
    return tables;
}

}  // namespace

const EntropyTables& entropy_tables() {
    static const std::unique_ptr<const EntropyTables> tables = make_tables();
    return *tables;
}

void EntropyEncoder::put(uint32_t value, Scale& scale) {
    const unsigned shift = scale.shift();
    const BandTable& table = scale.table(tables_);
    const uint32_t high = value >> shift;
    if (high < kDirect) {
        put_symbol(table, high);
    } else {
        const auto width = static_cast<unsigned>(std::bit_width(high));
        put_symbol(table, 11 + width);
        put_bits(high - (1u << (width - 1)), width - 1);
    }
    if (shift) put_bits(value & ((1u << shift) - 1), shift);
    scale.update(value);
}

void EntropyEncoder::put_bits(uint64_t bits, unsigned count) {
    for (unsigned done = 0; done < count; done += 16) {
        const unsigned part = std::min(count - done, 16u);
        steps_.push_back(kBits | part << 16 | static_cast<uint32_t>(bits >> done & ((1u << part) - 1)));
    }
}

// The stream is written from its end: the decoder reads the steps in their order.
void EntropyEncoder::finish(std::vector<uint8_t>& encoded) {
    uint32_t state = kOne;
    std::vector<uint16_t> words;
    words.reserve(steps_.size() / 2);
    for (size_t i = steps_.size(); i-- > 0;) {
        const uint32_t step = steps_[i];
        const uint32_t high = step >> 16 & 0x7fff, low = step & 0xffff;
        const bool bits = step & kBits;
        if (state >= (bits ? uint64_t{1} << (32 - high) : uint64_t{low} << 20)) {
            words.push_back(static_cast<uint16_t>(state));
            state >>= 16;
        }
        if (bits) state = state << high | low;
        else state = (state / low << kSlotBits) + state % low + high;
    }
    steps_.clear();
    const size_t at = encoded.size();
    encoded.resize(at + 4 + 2 * words.size());
    std::memcpy(encoded.data() + at, &state, 4);
    std::reverse(words.begin(), words.end());
    if (!words.empty()) std::memcpy(encoded.data() + at + 4, words.data(), 2 * words.size());
}

}  // namespace springtide
