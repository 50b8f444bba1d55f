#include "serving/withheld.h"

#include <algorithm>

#include "table/decay.h"

namespace springtide {
namespace {

void copy_one(const WithheldRows& rows, size_t from, WithheldColumns out, size_t at) {
    out.keys[at] = rows.keys[from];
    out.worth[at] = rows.worth[from];
    out.worth_per_byte[at] = rows.worth_per_byte[from];
    out.seen_s[at] = rows.seen_s[from];
}

size_t copy(const WithheldRows& rows, size_t from, WithheldColumns out, size_t at) {
    std::copy(rows.keys + from, rows.keys + rows.n, out.keys + at);
    std::copy(rows.worth + from, rows.worth + rows.n, out.worth + at);
    std::copy(rows.worth_per_byte + from, rows.worth_per_byte + rows.n, out.worth_per_byte + at);
    std::copy(rows.seen_s + from, rows.seen_s + rows.n, out.seen_s + at);
    return at + rows.n - from;
}

}  // namespace

void decay_worth(const WithheldRows& rows, uint32_t at_s, double half_life_s, WithheldColumns out) {
    for (size_t i = 0; i < rows.n; ++i) {
        const uint32_t seen_s = rows.seen_s[i];
        const double decay = seen_s < at_s ? half_to_the((at_s - seen_s) / half_life_s) : 1.0;
        out.worth[i] = static_cast<float>(rows.worth[i] * decay);
        out.worth_per_byte[i] = static_cast<float>(rows.worth_per_byte[i] * decay);
    }
}

// Branch-free comparison of keys, whose order is unpredictable.
size_t merge_scored(const WithheldRows& rows, const WithheldRows& scored, const bool* withheld, WithheldColumns out) {
    size_t i = 0, j = 0, m = 0;
    while (i < rows.n && j < scored.n) {
        const uint64_t key = rows.keys[i], scored_key = scored.keys[j];
        const bool unscored = key < scored_key;
        const WithheldRows& from = unscored ? rows : scored;
        const size_t at = unscored ? i : j;
        copy_one(from, at, out, m);
        m += unscored | withheld[j];
        i += key <= scored_key;
        j += !unscored;
    }
    m = copy(rows, i, out, m);
    for (; j < scored.n; ++j) {
        copy_one(scored, j, out, m);
        m += withheld[j];
    }
    return m;
}

size_t split_chosen(const WithheldRows& rows, const bool* chosen, uint64_t* chosen_keys, WithheldColumns rest) {
    size_t k = 0, m = 0;
    for (size_t i = 0; i < rows.n; ++i) {
        if (chosen[i]) {
            chosen_keys[k++] = rows.keys[i];
            continue;
        }
        copy_one(rows, i, rest, m++);
    }
    return m;
}

}  // namespace springtide
