// Payloads from outside decode to something, whatever they hold; finite rows encode, and decoding keeps to their codes.
#include <cmath>

#include "input.h"
#include "quantizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    const unsigned bits = 4u << input.take<uint8_t>() % 4;
    const size_t dim = 1 + input.take_size(70);
    // Heap buffers of the exact size: the sanitizer then sees a read beyond a payload's end.
    std::vector<uint8_t> payload = input.take_many<uint8_t>(freshet::payload_bytes(bits, dim));
    std::vector<float> row(dim);
    freshet::decode_row(payload.data(), dim, bits, row.data());
    row = input.take_many<float>(dim);
    for (float& weight : row)
        if (!std::isfinite(weight)) weight = 0;
    freshet::encode_row(row.data(), dim, bits, payload.data());
    std::vector<float> decoded(dim);
    freshet::decode_row(payload.data(), dim, bits, decoded.data());
    if (bits == 32) must(std::memcmp(row.data(), decoded.data(), dim * sizeof(float)) == 0, "32 bits keep a row");
    return 0;
}
