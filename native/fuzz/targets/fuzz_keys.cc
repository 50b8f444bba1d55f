// Arrow columns with arbitrary offsets, validity and slices: rejected, or hashed within their buffers.
#include <memory>

#include "fuzz/input.h"
#include "keys/keys.h"

namespace {

template <typename Offset>
void hash(Input& input, size_t n) {
    const std::vector<Offset> offsets = input.take_many<Offset>(n + 1);
    const int64_t first = static_cast<int64_t>(input.take_size(9));
    const std::vector<uint8_t> bits = input.take_many<uint8_t>((n + static_cast<size_t>(first) + 7) / 8);
    const bool nulls = input.take<uint8_t>() % 2;
    const std::vector<uint8_t> text = input.take_many<uint8_t>(input.left());
    std::vector<uint64_t> out(n);
    const springtide::Validity valid{nulls ? bits.data() : nullptr, first};
    if (!springtide::hash_texts(offsets.data(), text.data(), text.size(), valid, n, 1, out.data())) return;
    for (size_t i = 0; i < n; ++i)
        must(valid(i) || out[i] == springtide::null_key(1), "a null has the null key");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    const bool wide = input.take<uint8_t>() % 2;
    const size_t n = input.take_size(40);
    wide ? hash<int64_t>(input, n) : hash<int32_t>(input, n);
    return 0;
}
