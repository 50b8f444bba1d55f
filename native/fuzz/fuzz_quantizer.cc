// Payloads from outside decode to something, whatever they hold; finite rows encode; and both give the same bytes at every
// SIMD level. Buffers have the exact size and lie on the heap: the sanitizer then sees a step beyond their ends.
#include <cmath>

#include "input.h"
#include "quantizer.h"
#include "simd.h"

namespace {

using freshet::simd::Level;

struct Row {
    unsigned bits;
    std::vector<uint8_t> payload;
    std::vector<float> weights;
};

std::vector<float> decoded(const Row& row, size_t dim) {
    std::vector<float> weights(dim);
    freshet::decode_row(row.payload.data(), dim, row.bits, weights.data());
    return weights;
}

std::vector<uint8_t> encoded(const Row& row, size_t dim) {
    std::vector<uint8_t> payload(freshet::payload_bytes(row.bits, dim));
    freshet::encode_row(row.weights.data(), dim, row.bits, payload.data());
    return payload;
}

template <typename T>
bool same_bytes(const std::vector<T>& one, const std::vector<T>& other) {
    return one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size() * sizeof(T)) == 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    const size_t dim = 1 + input.take_size(70);
    Row row{4u << input.take<uint8_t>() % 4, {}, {}};
    row.payload = input.take_many<uint8_t>(freshet::payload_bytes(row.bits, dim));
    row.weights = input.take_many<float>(dim);
    for (float& weight : row.weights)
        if (!std::isfinite(weight)) weight = 0;
    (void)freshet::simd::force_level(Level::portable);
    const std::vector<float> plain_weights = decoded(row, dim);
    const std::vector<uint8_t> plain_payload = encoded(row, dim);
    for (const Level level : {Level::avx2, Level::avx512}) {
        if (!freshet::simd::force_level(level)) continue;
        must(same_bytes(decoded(row, dim), plain_weights), "a level decodes like portable");
        must(same_bytes(encoded(row, dim), plain_payload), "a level encodes like portable");
    }
    if (row.bits == 32) must(same_bytes(decoded({32, plain_payload, {}}, dim), row.weights), "32 bits keep a row");
    return 0;
}
