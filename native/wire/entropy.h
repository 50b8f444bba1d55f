// Entropy coding of small integers: range asymmetric numeral systems (rANS; Duda, "Asymmetric numeral systems", 2013)
// with static tables, one of which is chosen for each integer by the running mean of those before it, as in LOCO-I
// (Weinberger et al., 2000). Nothing is trained and no table is sent.
//
// A stream is the final state (uint32) and then 16-bit words, little-endian. The state x begins at 2^16. Reading:
//
//   symbol  slot = x mod 2^12; the symbol s has start <= slot < start + freq; x = freq * (x >> 12) + slot - start
//   bits    k <= 16: the low k bits of x; x >>= k
//   then, while x < 2^16: x = x << 16 | next word
//
// An integer v < 2^32 in a scale of mean m (in sixteenths): shift = max(0, width(m) - 8), where width(m) is the number
// of bits of m; the table is that of band(m >> shift); h = v >> shift. Symbol h if h < 16, else 11 + width(h) followed
// by the width(h) - 1 low bits of h. Then the `shift` low bits of v. Bits of more than 16 are read in parts of 16,
// lowest first. Afterwards m += (16 * min(v, 2^24) - m) >> 2, rounded down.
//
// Values of one class thus cost about their entropy: at most a tenth more for geometric distributions. Threads: an
// encoder and a decoder are each for one thread; tables are immutable. Decoding is safe for any bytes.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace springtide {

inline constexpr unsigned kBands = 16, kSymbols = 44, kDirect = 16, kSlotBits = 12;

// An integer takes at least 1/16 bit of its stream. No table gives a symbol more than 15/16 of the slots, 0.09 bit. A
// symbol's share of the state is rounded by at most one slot in x >> 12 >= 16, which takes back 1.2 of the 16 bits of a
// word.
inline constexpr unsigned kMostPerBit = 16;

// A symbol has the slots from `start` on; the frequencies of a band sum to 2^12.
struct Share {
    uint16_t freq, start;
};

// The shares of the symbols of one band, and the symbol of each slot. Those of a few bands fit the first-level cache.
struct BandTable {
    std::array<Share, kSymbols> shares;
    std::array<uint8_t, 1 << kSlotBits> symbols;
};

struct EntropyTables {
    std::array<BandTable, kBands> bands;
    std::array<const BandTable*, 256> of_mean;  // below 256 sixteenths
};

// Computed at the first call.
const EntropyTables& entropy_tables();

// The running mean of one class of integers, which selects the table of the next one.
class Scale {
public:
    unsigned shift() const { return mean_ < 256 ? 0 : static_cast<unsigned>(std::bit_width(mean_)) - 8; }
    const BandTable& table(const EntropyTables& tables) const { return *tables.of_mean[mean_ >> shift()]; }
    void update(uint32_t value) {
        const auto mean = static_cast<int32_t>(mean_);
        mean_ = static_cast<uint32_t>(mean + ((16 * static_cast<int32_t>(std::min(value, kMost)) - mean) >> 2));
    }

private:
    static constexpr uint32_t kMost = 1 << 24;
    uint32_t mean_ = 16;
};

class EntropyEncoder {
public:
    void put(uint32_t value, Scale& scale);
    // `count` <= 64 low bits of `bits`; the others must be 0.
    void put_bits(uint64_t bits, unsigned count);
    // Appends the stream to `encoded`; the encoder is empty afterwards.
    void finish(std::vector<uint8_t>& encoded);

private:
    void put_symbol(const BandTable& table, unsigned symbol) {
        const Share share = table.shares[symbol];
        steps_.push_back(static_cast<uint32_t>(share.start) << 16 | share.freq);
    }

    const EntropyTables& tables_ = entropy_tables();
    std::vector<uint32_t> steps_;  // start << 16 | freq; or kBits | count << 16 | bits
};

class EntropyDecoder {
public:
    // Reads from [at, end), which must outlive the decoder.
    EntropyDecoder(const uint8_t* at, const uint8_t* end) : at_(at), end_(end) {
        if (end - at < 4) fail();
        else std::memcpy(&state_, at_, 4), at_ += 4;
    }

    // Each integer waits for the state and the mean of the one before: inline, so that a loop keeps both in registers.
    [[gnu::always_inline]] uint32_t take(Scale& scale) {
        const unsigned shift = scale.shift();
        const BandTable& table = scale.table(*tables_);
        const uint32_t slot = state_ & ((1 << kSlotBits) - 1);
        uint32_t value = table.symbols[slot];
        const Share share = table.shares[value];
        state_ = share.freq * (state_ >> kSlotBits) + slot - share.start;
        refill();
        if (value >= kDirect) [[unlikely]] {
            const unsigned width = value - 11;
            value = 1u << (width - 1) | static_cast<uint32_t>(take_bits(width - 1));
        }
        if (shift) [[unlikely]] value = static_cast<uint32_t>(static_cast<uint64_t>(value) << shift | take_bits(shift));
        scale.update(value);
        return value;
    }

    [[gnu::always_inline]] uint64_t take_bits(unsigned count) {
        uint64_t bits = 0;
        for (unsigned done = 0; done < count; done += 16) {
            const unsigned part = std::min(count - done, 16u);
            bits |= static_cast<uint64_t>(state_ & ((1u << part) - 1)) << done;
            state_ >>= part;
            refill();
        }
        return bits;
    }

    // False after the first read beyond the end: what is read then is unspecified.
    bool good() const { return good_; }
    // Whether everything was read and the stream is one that the encoder writes.
    bool finished() const { return good_ && at_ == end_ && state_ == 1u << 16; }

private:
    void fail() { good_ = false, state_ = 1u << 16, at_ = end_; }
    // Without a branch on the state, which no processor predicts.
    [[gnu::always_inline]] void refill() {
        const uint32_t low = state_ < 1u << 16;
        if (end_ - at_ < 2) [[unlikely]] {
            if (low) fail();
            return;
        }
        uint16_t word;
        std::memcpy(&word, at_, 2);
        at_ += 2 * low;
        state_ = state_ << 16 * low | (word & (0 - low));
    }

    const EntropyTables* tables_ = &entropy_tables();
    const uint8_t* at_;
    const uint8_t* end_;
    uint32_t state_ = 1u << 16;
    bool good_ = true;
};

// Signed integers as unsigned ones: 0, -1, 1, -2, ... are 0, 1, 2, 3, ...
constexpr uint32_t zigzag(int32_t value) {
    return static_cast<uint32_t>(value) << 1 ^ static_cast<uint32_t>(value >> 31);
}
constexpr int32_t unzigzag(uint32_t value) {
    return static_cast<int32_t>(value >> 1) ^ -static_cast<int32_t>(value & 1);
}

}  // namespace springtide
