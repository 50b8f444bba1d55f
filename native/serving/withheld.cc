#include "serving/withheld.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <vector>

namespace springtide {
namespace {

constexpr size_t kDigits = 1 << 16;

// In the order of the values: floats that are not negative compare like their bits.
uint32_t rank_of(float value) { return value > 0 ? std::bit_cast<uint32_t>(value) : 0; }

size_t copy(const WithheldRows& rows, size_t from, WithheldColumns out, size_t at) {
    std::copy(rows.keys + from, rows.keys + rows.n, out.keys + at);
    std::copy(rows.worth + from, rows.worth + rows.n, out.worth + at);
    std::copy(rows.value + from, rows.value + rows.n, out.value + at);
    return at + rows.n - from;
}

// Where a share ends: all of the digits above are carried, and of this one what is missing.
struct Cut {
    size_t digit;
    double carried;  // by the digits above
};

Cut cut_of(const std::vector<double>& sums, double carried, double wanted) {
    size_t digit = sums.size() - 1;
    for (; digit > 0 && !(carried + sums[digit] >= wanted); --digit) carried += sums[digit];
    return {digit, carried};
}

double total_of(const std::vector<double>& sums) {
    double total = 0;
    for (size_t digit = sums.size(); digit > 0; --digit) total += sums[digit - 1];
    return total;
}

// The worth of rows by a digit of their rank; digit_of gives kDigits for a row that is not asked for.
template <class DigitOf>
std::vector<double> sums_by(const float* worth, const float* value, size_t n, DigitOf digit_of) {
    std::vector<double> sums(kDigits + 1, 0.0);
    for (size_t i = 0; i < n; ++i)
        if (worth[i] > 0) sums[digit_of(rank_of(value[i]))] += worth[i];
    sums.pop_back();
    return sums;
}

}  // namespace

// No branch depends on which key is less, which nobody could guess.
size_t judge_anew(const WithheldRows& held, const WithheldRows& judged, const bool* withheld, WithheldColumns out) {
    size_t h = 0, j = 0, m = 0;
    while (h < held.n && j < judged.n) {
        const uint64_t held_key = held.keys[h], judged_key = judged.keys[j];
        const bool stays = held_key < judged_key;
        const WithheldRows& from = stays ? held : judged;
        const size_t at = stays ? h : j;
        out.keys[m] = from.keys[at];
        out.worth[m] = from.worth[at];
        out.value[m] = from.value[at];
        m += stays | withheld[j];
        h += held_key <= judged_key;
        j += !stays;
    }
    m = copy(held, h, out, m);
    for (; j < judged.n; ++j) {
        out.keys[m] = judged.keys[j];
        out.worth[m] = judged.worth[j];
        out.value[m] = judged.value[j];
        m += withheld[j];
    }
    return m;
}

size_t take_out(const WithheldRows& held, const bool* chosen, uint64_t* taken, WithheldColumns left) {
    size_t t = 0, m = 0;
    for (size_t i = 0; i < held.n; ++i) {
        if (chosen[i]) {
            taken[t++] = held.keys[i];
            continue;
        }
        left.keys[m] = held.keys[i];
        left.worth[m] = held.worth[i];
        left.value[m++] = held.value[i];
    }
    return m;
}

// A rank has two digits of 16 bits. Where the first digit of the last row that is needed is known, its second one is
// looked for; rows of that very rank are equals, and taken in order.
void select_worthiest(const float* worth, const float* value, size_t n, double share, bool* chosen) {
    const auto sums = sums_by(worth, value, n, [](uint32_t rank) { return rank >> 16; });
    const double wanted = share < 1 ? share * total_of(sums) : std::numeric_limits<double>::infinity();
    const Cut first = cut_of(sums, 0, wanted);
    const auto in_first = [&](uint32_t rank) { return rank >> 16 == first.digit ? rank & 0xffff : kDigits; };
    const Cut second = cut_of(sums_by(worth, value, n, in_first), first.carried, wanted);
    const auto last = static_cast<uint32_t>(first.digit << 16 | second.digit);
    double carried = second.carried;
    for (size_t i = 0; i < n; ++i) {
        const uint32_t rank = rank_of(value[i]);
        chosen[i] = worth[i] > 0 && (rank > last || (rank == last && carried < wanted));
        if (chosen[i] && rank == last) carried += worth[i];
    }
}

}  // namespace springtide
