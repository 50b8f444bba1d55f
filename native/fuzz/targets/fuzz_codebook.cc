// Untrusted codebooks: one that passes the check decodes within its bytes to finite numbers.
#include <cmath>

#include "fuzz/input.h"
#include "quantizer/codebook.h"

namespace {

// A valid codebook of the input's numbers, with bytes changed as the input specifies.
std::vector<uint8_t> changed_codebook(Input& input) {
    const size_t n = 1 + input.take_size(12), dim = 1 + input.take_size(20);
    const unsigned bits = 2u << input.take<uint8_t>() % 3;
    const size_t entries = 1 + input.take_size(8);
    std::vector<float> rows(n * dim);
    for (float& weight : rows) weight = static_cast<float>(input.take<int16_t>()) / 1000.0f;
    std::vector<uint8_t> bytes = springtide::encode_codebook(rows.data(), n, dim, bits, entries);
    for (size_t changes = input.take_size(4); changes > 0; --changes)
        bytes[input.take_size(bytes.size() - 1)] = input.take<uint8_t>();
    bytes.resize(bytes.size() - input.take_size(2) % bytes.size());
    return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input_bytes, size_t size) {
    Input input(input_bytes, size);
    const bool raw = input.take<uint8_t>() % 4 == 0;
    const std::vector<uint8_t> bytes = raw ? input.take_many<uint8_t>(input.left()) : changed_codebook(input);
    springtide::CodebookShape shape{};
    if (springtide::check_codebook(bytes.data(), bytes.size(), shape) != nullptr) return 0;
    std::vector<float> rows(shape.rows * shape.dim);
    springtide::decode_codebook(bytes.data(), shape, rows.data());
    for (const float weight : rows) must(std::isfinite(weight), "grids are finite");
    return 0;
}
