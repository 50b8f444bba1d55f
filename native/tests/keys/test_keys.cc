// Hashing without Python: published values, buffers of exact size, slices, nulls, and damaged offsets.
#include "keys/keys.h"

#include <cstring>
#include <limits>
#include <vector>

#include "keys/xxh64.h"
#include "simd/simd.h"
#include "tests/expect.h"

namespace {

constexpr springtide::Validity kAll{nullptr, 0};

void xxh64_has_its_published_values() {
    expect(springtide::xxh64(nullptr, 0, 0) == 0xEF46DB3751D8E999, "empty, seed 0");
    expect(springtide::xxh64("a", 1, 0) == 0xD24EC4F1A98C6E5B, "a, seed 0");
    expect(springtide::xxh64("abc", 3, 0) == 0x44BC2CF5AD770999, "abc, seed 0");
}

// Heap blocks of exact size at every alignment, so that AddressSanitizer detects an overrun.
void xxh64_reads_within_bounds() {
    for (size_t n = 0; n <= 100; ++n) {
        std::vector<unsigned char> bytes(n);
        for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<unsigned char>(i * 37);
        const uint64_t wanted = springtide::xxh64(bytes.data(), n, 5);
        for (size_t shift = 1; shift < 8; ++shift) {
            std::vector<unsigned char> shifted(n + shift);
            if (n > 0) std::memcpy(shifted.data() + shift, bytes.data(), n);
            expect(springtide::xxh64(shifted.data() + shift, n, 5) == wanted, "unaligned");
        }
    }
}

void a_word_hashes_like_its_bytes() {
    for (uint64_t word : {uint64_t{0}, uint64_t{42}, ~uint64_t{0}, uint64_t{0x0123456789ABCDEF}})
        expect(springtide::xxh64_word(word, 9) == springtide::xxh64(&word, 8, 9), "word");
}

// Lengths around the register widths, in blocks of exact size, in place and not.
void words_hash_equally_at_every_level() {
    namespace simd = springtide::simd;
    for (const simd::Level level : {simd::Level::portable, simd::Level::avx2, simd::Level::avx512,
                                   simd::Level::vnni}) {
        if (!simd::force_level(level)) continue;
        for (size_t n = 0; n < 70; ++n) {
            std::vector<uint64_t> words(n), wanted(n), out(n);
            for (size_t i = 0; i < n; ++i) words[i] = i * 0x9E3779B97F4A7C15;
            for (size_t i = 0; i < n; ++i) wanted[i] = springtide::xxh64(&words[i], 8, n);
            springtide::xxh64_words(words.data(), n, n, out.data());
            expect(out == wanted, "words");
            springtide::xxh64_words(words.data(), n, n, words.data());
            expect(words == wanted, "words in place");
        }
    }
    expect(simd::force_level(simd::best_level()), "the best level is supported");
}

void texts_hash_by_their_offsets() {
    const std::vector<uint8_t> text = {'a', 'b', 'c'};
    const std::vector<int32_t> offsets = {0, 1, 1, 3};
    const std::vector<uint8_t> bitmap = {0b1010};  // with offset 1, rows 0 and 2 are valid
    std::vector<uint64_t> out(3);
    const springtide::Validity valid{bitmap.data(), 1};
    expect(springtide::hash_texts(offsets.data(), text.data(), text.size(), valid, 3, 7, out.data()), "valid offsets");
    expect(out[0] == springtide::xxh64("a", 1, 7), "a");
    expect(out[1] == springtide::null_key(7), "null");
    expect(out[2] == springtide::xxh64("bc", 2, 7), "bc");
}

void damaged_offsets_are_rejected() {
    const std::vector<uint8_t> text = {'a', 'b', 'c'};
    uint64_t out[2];
    const std::vector<std::vector<int64_t>> damaged = {{0, 2, 1}, {0, 1, 4}, {-1, 0, 0}, {0, -5, 3}, {9, 9, 9}};
    for (const auto& offsets : damaged)
        expect(!springtide::hash_texts(offsets.data(), text.data(), text.size(), kAll, 2, 7, out), "damaged offsets");
}

void doubles_have_one_zero_and_one_nan() {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double values[4] = {0.0, -0.0, nan, -nan};
    uint64_t out[4];
    springtide::hash_doubles(values, kAll, 4, 1, out);
    expect(out[0] == out[1] && out[2] == out[3] && out[0] != out[2], "zeros and nans");
}

void booleans_are_read_bit_by_bit() {
    const std::vector<uint8_t> bits = {0b01000000, 0b00000001};
    uint64_t out[4];
    springtide::hash_booleans(bits.data(), 6, kAll, 4, 1, out);
    const uint64_t yes = springtide::xxh64_word(1, 1), no = springtide::xxh64_word(0, 1);
    expect(out[0] == yes && out[1] == no && out[2] == yes && out[3] == no, "booleans");
}

}  // namespace

int main() {
    xxh64_has_its_published_values();
    xxh64_reads_within_bounds();
    a_word_hashes_like_its_bytes();
    words_hash_equally_at_every_level();
    texts_hash_by_their_offsets();
    damaged_offsets_are_rejected();
    doubles_have_one_zero_and_one_nan();
    booleans_are_read_bit_by_bit();
}
