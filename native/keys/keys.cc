#include "keys/keys.h"

#include <bit>
#include <limits>

#include "keys/xxh64.h"

namespace springtide {
namespace {

// An arbitrary constant that gives a null a key different from that of an empty string with the same seed.
constexpr uint64_t kNullSeed = 0x6E756C6C6B657921;

void replace_nulls(Validity valid, size_t n, uint64_t seed, uint64_t* out) {
    if (valid.bits == nullptr) return;
    const uint64_t missing = null_key(seed);
    for (size_t i = 0; i < n; ++i) out[i] = valid(i) ? out[i] : missing;
}

}  // namespace

uint64_t null_key(uint64_t seed) { return xxh64_word(kNullSeed, seed ^ kNullSeed); }

template <typename Offset>
bool hash_texts(const Offset* offsets, const uint8_t* text, size_t text_bytes, Validity valid, size_t n, uint64_t seed,
                uint64_t* out) {
    const uint64_t missing = null_key(seed);
    for (size_t i = 0; i < n; ++i) {
        const int64_t begin = offsets[i], end = offsets[i + 1];
        if (begin < 0 || end < begin || static_cast<uint64_t>(end) > text_bytes) return false;
        out[i] = valid(i) ? xxh64(text + begin, static_cast<size_t>(end - begin), seed) : missing;
    }
    return true;
}

template bool hash_texts(const int32_t*, const uint8_t*, size_t, Validity, size_t, uint64_t, uint64_t*);
template bool hash_texts(const int64_t*, const uint8_t*, size_t, Validity, size_t, uint64_t, uint64_t*);

void hash_integers(const int64_t* values, Validity valid, size_t n, uint64_t seed, uint64_t* out) {
    xxh64_words(reinterpret_cast<const uint64_t*>(values), n, seed, out);
    replace_nulls(valid, n, seed, out);
}

void hash_doubles(const double* values, Validity valid, size_t n, uint64_t seed, uint64_t* out) {
    for (size_t i = 0; i < n; ++i) {
        const double zeroed = values[i] == 0 ? 0.0 : values[i];
        out[i] = std::bit_cast<uint64_t>(zeroed == zeroed ? zeroed : std::numeric_limits<double>::quiet_NaN());
    }
    xxh64_words(out, n, seed, out);
    replace_nulls(valid, n, seed, out);
}

void hash_booleans(const uint8_t* bits, int64_t bit_offset, Validity valid, size_t n, uint64_t seed, uint64_t* out) {
    const uint64_t of[2] = {xxh64_word(0, seed), xxh64_word(1, seed)};
    const uint64_t missing = null_key(seed);
    const Validity value{bits, bit_offset};
    for (size_t i = 0; i < n; ++i) out[i] = valid(i) ? of[value(i)] : missing;
}

void combine(const uint64_t* keys, size_t n, size_t columns, uint64_t seed, uint64_t* out) {
    const size_t row_bytes = columns * sizeof(uint64_t);
    for (size_t i = 0; i < n; ++i) out[i] = xxh64(keys + i * columns, row_bytes, seed);
}

}  // namespace springtide
