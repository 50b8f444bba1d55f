// Pooling with arbitrary offsets and indices: rejected by check(), or pool() and unpool() stay within their arrays.
#include <stdexcept>

#include "batch/pooling.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    Input input(bytes, size);
    const size_t m = input.take_size(32), n = input.take_size(16), u = input.take_size(8);
    const size_t dim = 1 + input.take_size(17), start = input.take_size(3);
    const auto kind = static_cast<springtide::PoolingKind>(input.take<uint8_t>() % 5);
    const bool sequence = kind == springtide::PoolingKind::kNone;
    const springtide::FieldPooling field{kind, sequence ? input.take_size(5) : 0};
    const size_t count = start + field.width(dim) + input.take_size(2);
    const bool weighted = input.take<uint8_t>() % 2, tame = input.take<uint8_t>() % 4 != 0;
    std::vector<int32_t> inverse = input.take_many<int32_t>(m);
    std::vector<int64_t> offsets = input.take_many<int64_t>(n + 1);
    if (tame) {  // close to valid: small numbers, valid first and last offset
        for (int32_t& index : inverse) index &= 7;
        for (int64_t& offset : offsets) offset &= 31;
        offsets.front() = 0;
        offsets.back() = static_cast<int64_t>(m);
    }
    std::vector<float> weights;
    for (size_t j = 0; weighted && j < m; ++j) weights.push_back(static_cast<float>(input.take<int8_t>()));
    const springtide::Pooling pooling{inverse, offsets, u, dim, field, weights};
    std::vector<float> rows(u * dim, 1.0f), out(n * count, -1.0f), gradients(u * dim, -1.0f);
    const springtide::Columns columns{count, start};
    try {
        springtide::check(pooling, columns);
    } catch (const std::invalid_argument&) {
        return 0;
    }
    springtide::pool(pooling, rows.data(), out.data(), columns);
    std::vector<const float*> pointers(u);
    for (size_t row = 0; row < u; ++row) pointers[row] = rows.data() + row * dim;
    std::vector<float> again(n * count, -1.0f);
    springtide::pool(pooling, pointers.data(), again.data(), columns);
    must(again == out, "rows by pointer are pooled like contiguous rows");
    springtide::unpool(pooling, pointers.data(), out.data(), columns, gradients.data());
    return 0;
}
