#include "serving/withheld.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <vector>

namespace springtide {
namespace {

constexpr size_t kDigits = 1 << 16;

// A rank in the order of the values: the bits of floats that are not negative are ordered like the floats.
uint32_t rank_of(float worth_per_byte) { return worth_per_byte > 0 ? std::bit_cast<uint32_t>(worth_per_byte) : 0; }

size_t copy(const WithheldRows& rows, size_t from, WithheldColumns out, size_t at) {
    std::copy(rows.keys + from, rows.keys + rows.n, out.keys + at);
    std::copy(rows.worth + from, rows.worth + rows.n, out.worth + at);
    std::copy(rows.worth_per_byte + from, rows.worth_per_byte + rows.n, out.worth_per_byte + at);
    return at + rows.n - from;
}

// The digit at which a share is reached: rows with higher digits are selected, and some of the rows with this digit.
struct Cut {
    size_t digit;
    double worth_above;  // total worth of higher digits
};

Cut cut_of(const std::vector<double>& sums, double worth_above, double wanted) {
    size_t digit = sums.size() - 1;
    for (; digit > 0 && !(worth_above + sums[digit] >= wanted); --digit) worth_above += sums[digit];
    return {digit, worth_above};
}

double total_of(const std::vector<double>& sums) {
    double total = 0;
    for (size_t digit = sums.size(); digit > 0; --digit) total += sums[digit - 1];
    return total;
}

// The total worth of rows by a digit of their rank; digit_of returns kDigits for rows to ignore.
template <class DigitOf>
std::vector<double> sums_by(const float* worth, const float* worth_per_byte, size_t n, DigitOf digit_of) {
    std::vector<double> sums(kDigits + 1, 0.0);
    for (size_t i = 0; i < n; ++i)
        if (worth[i] > 0) sums[digit_of(rank_of(worth_per_byte[i]))] += worth[i];
    sums.pop_back();
    return sums;
}

}  // namespace

// Branch-free comparison of keys, whose order is unpredictable.
size_t merge_scored(const WithheldRows& rows, const WithheldRows& scored, const bool* withheld, WithheldColumns out) {
    size_t i = 0, j = 0, m = 0;
    while (i < rows.n && j < scored.n) {
        const uint64_t key = rows.keys[i], scored_key = scored.keys[j];
        const bool unscored = key < scored_key;
        const WithheldRows& from = unscored ? rows : scored;
        const size_t at = unscored ? i : j;
        out.keys[m] = from.keys[at];
        out.worth[m] = from.worth[at];
        out.worth_per_byte[m] = from.worth_per_byte[at];
        m += unscored | withheld[j];
        i += key <= scored_key;
        j += !unscored;
    }
    m = copy(rows, i, out, m);
    for (; j < scored.n; ++j) {
        out.keys[m] = scored.keys[j];
        out.worth[m] = scored.worth[j];
        out.worth_per_byte[m] = scored.worth_per_byte[j];
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
        rest.keys[m] = rows.keys[i];
        rest.worth[m] = rows.worth[i];
        rest.worth_per_byte[m++] = rows.worth_per_byte[i];
    }
    return m;
}

// A rank has two digits of 16 bits. The first pass finds the first digit of the last selected row, the second pass its
// second digit; rows of exactly this rank are selected in order until the share is complete.
void select_worthiest(const float* worth, const float* worth_per_byte, size_t n, double share, bool* chosen) {
    const auto sums = sums_by(worth, worth_per_byte, n, [](uint32_t rank) { return rank >> 16; });
    const double wanted = share < 1 ? share * total_of(sums) : std::numeric_limits<double>::infinity();
    const Cut first = cut_of(sums, 0, wanted);
    const auto in_first = [&](uint32_t rank) { return rank >> 16 == first.digit ? rank & 0xffff : kDigits; };
    const Cut second = cut_of(sums_by(worth, worth_per_byte, n, in_first), first.worth_above, wanted);
    const auto last = static_cast<uint32_t>(first.digit << 16 | second.digit);
    double selected = second.worth_above;
    for (size_t i = 0; i < n; ++i) {
        const uint32_t rank = rank_of(worth_per_byte[i]);
        chosen[i] = worth[i] > 0 && (rank > last || (rank == last && selected < wanted));
        if (chosen[i] && rank == last) selected += worth[i];
    }
}

}  // namespace springtide
