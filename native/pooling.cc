#include "pooling.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "xxh64.h"

namespace freshet {
namespace {

[[noreturn]] void refuse(const char* what, int64_t got, const std::string& wanted) {
    throw std::invalid_argument(std::string(what) + ": got " + std::to_string(got) + ", wanted " + wanted);
}

void check(const Pooling& pooling, size_t columns, size_t start) {
    if (start > columns || pooling.dim > columns - start)
        refuse("start", static_cast<int64_t>(start),
               "room for " + std::to_string(pooling.dim) + " of " + std::to_string(columns) + " columns");
    const auto& offsets = pooling.offsets;
    const auto m = static_cast<int64_t>(pooling.inverse.size());
    if (offsets.empty()) refuse("offsets", 0, "n + 1 of them");
    if (offsets.front() != 0) refuse("offsets[0]", offsets.front(), "0");
    if (offsets.back() != m) refuse("last of offsets", offsets.back(), std::to_string(m) + ", the number of keys");
    const auto step_back = std::is_sorted_until(offsets.begin(), offsets.end());
    if (step_back != offsets.end())
        refuse("offsets", *step_back, "at least " + std::to_string(*(step_back - 1)) + ", the one before");
    for (const int32_t k : pooling.inverse)
        if (k < 0 || static_cast<size_t>(k) >= pooling.u) refuse("inverse", k, "0 to " + std::to_string(pooling.u) + " - 1");
}

}  // namespace

Unique unique(std::span<const uint64_t> keys) {
    constexpr int32_t kFree = -1;
    Unique result;
    result.inverse.resize(keys.size());
    const size_t slots = std::bit_ceil(std::max<size_t>(keys.size() * 2, 16));
    std::vector<int32_t> table(slots, kFree);  // index into result.keys
    for (size_t j = 0; j < keys.size(); ++j) {
        size_t at = xxh64_word(keys[j], 0) & (slots - 1);
        while (table[at] != kFree && result.keys[table[at]] != keys[j]) at = (at + 1) & (slots - 1);
        if (table[at] == kFree) {
            table[at] = static_cast<int32_t>(result.keys.size());
            result.keys.push_back(keys[j]);
            result.counts.push_back(0);
        }
        result.inverse[j] = table[at];
        ++result.counts[table[at]];
    }
    return result;
}

void pool(const Pooling& pooling, const float* rows, float* out, size_t columns, size_t start) {
    check(pooling, columns, start);
    const size_t dim = pooling.dim;
    for (size_t i = 0; i + 1 < pooling.offsets.size(); ++i) {
        float* target = out + i * columns + start;
        const int64_t first = pooling.offsets[i], end = pooling.offsets[i + 1];
        std::fill_n(target, dim, 0.0f);
        for (int64_t j = first; j < end; ++j) {
            const float* row = rows + static_cast<size_t>(pooling.inverse[j]) * dim;
            for (size_t d = 0; d < dim; ++d) target[d] += row[d];
        }
        if (pooling.mean && end - first > 1)
            for (size_t d = 0; d < dim; ++d) target[d] /= static_cast<float>(end - first);
    }
}

void unpool(const Pooling& pooling, const float* pooled, size_t columns, size_t start, float* gradients) {
    check(pooling, columns, start);
    const size_t dim = pooling.dim;
    std::fill_n(gradients, pooling.u * dim, 0.0f);
    for (size_t i = 0; i + 1 < pooling.offsets.size(); ++i) {
        const float* source = pooled + i * columns + start;
        const int64_t first = pooling.offsets[i], end = pooling.offsets[i + 1];
        const float keys = pooling.mean ? static_cast<float>(end - first) : 1.0f;
        for (int64_t j = first; j < end; ++j) {
            float* gradient = gradients + static_cast<size_t>(pooling.inverse[j]) * dim;
            for (size_t d = 0; d < dim; ++d) gradient[d] += source[d] / keys;
        }
    }
}

}  // namespace freshet
