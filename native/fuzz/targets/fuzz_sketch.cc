// Arbitrary bytes as a stored sketch: rejected, or to_bytes() returns the same bytes. Most inputs get a valid checksum
// and a small shape, without which few would pass the header check.
#include <cstring>

#include "batch/sketch.h"
#include "fuzz/input.h"
#include "keys/xxh64.h"

namespace {

using Bytes = std::vector<uint8_t>;

template <typename T>
void put(Bytes& bytes, T value) {
    bytes.resize(bytes.size() + sizeof(value));
    std::memcpy(bytes.data() + bytes.size() - sizeof(value), &value, sizeof(value));
}

Bytes sealed(Input& input) {
    Bytes bytes = {'F', 'S', 'K', '1'};
    const bool small = input.take<uint8_t>() % 8 != 0;
    put<uint32_t>(bytes, small ? input.take<uint8_t>() % 4 : input.take<uint32_t>());
    put<uint64_t>(bytes, small ? input.take<uint8_t>() % 16 : input.take<uint64_t>());
    const Bytes rest = input.take_many<uint8_t>(input.left());
    bytes.insert(bytes.end(), rest.begin(), rest.end());
    put<uint64_t>(bytes, springtide::xxh64(bytes.data(), bytes.size(), 0));
    return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input_bytes, size_t size) {
    Input input(input_bytes, size);
    const bool raw = input.take<uint8_t>() % 8 == 0;
    const Bytes bytes = raw ? input.take_many<uint8_t>(input.left()) : sealed(input);
    const auto sketch = springtide::CountingSketch::from_bytes(bytes.data(), bytes.size());
    if (!sketch) return 0;
    must(sketch->to_bytes() == bytes, "the encoding is canonical");
    uint64_t key = 7;
    uint32_t estimate;
    sketch->estimate(&key, 1, &estimate);
    return 0;
}
