// Arbitrary payloads decode and finite rows encode, with the same bytes at every SIMD level, alone and in a batch.
// Buffers have the exact size, so that the sanitizer detects an overrun.
#include <cmath>

#include "fuzz/input.h"
#include "quantizer/quantizer.h"
#include "quantizer/rounding.h"
#include "simd/simd.h"

namespace {

using springtide::Codec;
using springtide::simd::Level;

struct Batch {
    Codec codec;
    size_t n, dim;

    std::vector<float> decoded(const std::vector<uint8_t>& payloads) const {
        std::vector<float> rows(n * dim);
        springtide::decode_rows(codec, payloads.data(), n, dim, rows.data());
        return rows;
    }

    std::vector<uint8_t> encoded(const std::vector<float>& rows) const {
        std::vector<uint8_t> payloads(n * springtide::payload_bytes(codec, dim));
        springtide::encode_rows(codec, rows.data(), n, dim, payloads.data());
        return payloads;
    }
};

template <typename T>
bool same_bytes(const std::vector<T>& one, const std::vector<T>& other) {
    return one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size() * sizeof(T)) == 0;
}

// What training reads of a row, for every rounding, is what its payload decodes to.
void must_be_served_as_trained(const std::vector<float>& row) {
    for (unsigned number = 1; number < springtide::kRoundings; ++number) {
        const auto rounding = static_cast<springtide::Rounding>(number);
        const springtide::RowGrid grid = springtide::grid_of(row.data(), row.size(), rounding);
        std::vector<float> read;
        for (const float weight : row) read.push_back(grid.value_of(weight));
        std::vector<uint8_t> payload(springtide::payload_bytes(Codec::step8, row.size()));
        springtide::write_rounded(row.data(), row.size(), rounding, payload.data());
        must(same_bytes(Batch{Codec::step8, 1, row.size()}.decoded(payload), read), "a rounded row");
    }
}

template <typename T>
std::vector<T> last_of(const std::vector<T>& values, size_t count) {
    return {values.end() - static_cast<std::ptrdiff_t>(count), values.end()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    const Batch batch{static_cast<Codec>(input.take<uint8_t>() % 9), 1 + input.take_size(20), 1 + input.take_size(70)};
    const size_t row_bytes = springtide::payload_bytes(batch.codec, batch.dim);
    const auto payloads = input.take_many<uint8_t>(batch.n * row_bytes);
    std::vector<float> rows = input.take_many<float>(batch.n * batch.dim);
    for (float& weight : rows)
        if (!std::isfinite(weight)) weight = 0;
    (void)springtide::simd::force_level(Level::portable);
    const std::vector<float> plain_rows = batch.decoded(payloads);
    const std::vector<uint8_t> plain_payloads = batch.encoded(rows);
    for (const Level level : {Level::avx2, Level::avx512, Level::vnni}) {
        if (!springtide::simd::force_level(level)) continue;
        must(same_bytes(batch.decoded(payloads), plain_rows), "a level decodes like portable");
        must(same_bytes(batch.encoded(rows), plain_payloads), "a level encodes like portable");
    }
    const Batch alone{batch.codec, 1, batch.dim};
    must(same_bytes(alone.encoded(last_of(rows, batch.dim)), last_of(plain_payloads, row_bytes)), "a row alone");
    must(same_bytes(alone.decoded(last_of(payloads, row_bytes)), last_of(plain_rows, batch.dim)), "a payload alone");
    must_be_served_as_trained(last_of(rows, batch.dim));
    if (batch.codec == Codec::fp32) must(same_bytes(batch.decoded(plain_payloads), rows), "32 bits are lossless");
    return 0;
}
