#include "table/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace springtide {
namespace {

constexpr float kSettling = 1.0f / 16;  // weight of the newest relative step
constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();
constexpr float kLargest = std::numeric_limits<float>::max();

// 2^-x for x >= 0, to 2e-10, exact for whole x: exponent bits for the nearest whole number, exp's series for the rest,
// its even and odd terms side by side. The library's exp2 is nobody's promise across versions and processors.
double halved(double x) {
    if (!(x < 1000)) return 0.0;
    const auto whole = static_cast<int64_t>(x + 0.5);
    const double y = (static_cast<double>(whole) - x) * 0.6931471805599453, y2 = y * y;
    const double even = 1 + y2 * (1.0 / 2 + y2 * (1.0 / 24 + y2 * (1.0 / 720 + y2 * (1.0 / 40320))));
    const double odd = 1 + y2 * (1.0 / 6 + y2 * (1.0 / 120 + y2 * (1.0 / 5040)));
    return (even + y * odd) * std::bit_cast<double>(static_cast<uint64_t>(1023 - whole) << 52);
}

}  // namespace

void Tracker::note(Statistics& s, const Learned& learned, uint32_t count, uint32_t at_s) const {
    const float score = std::fabs(learned.inner);
    const float length = std::sqrt(learned.length_squared);
    const float moved = std::sqrt(learned.moved_squared);
    float relative = moved > 0 ? moved / (moved + length) : 0.0f;
    if (!(relative <= 1)) relative = 1;  // lengths beyond float: as unsettled as can be

    if (at_s > s.last_seen_s) {
        s.importance = static_cast<float>(s.importance * halved((at_s - s.last_seen_s) / half_life_s_));
        s.last_seen_s = at_s;
    }
    s.importance += score;
    if (!(s.importance <= kLargest)) s.importance = kLargest;  // never infinite: rows are compared by it
    s.unsettled = s.count == 0 ? relative : s.unsettled + kSettling * (relative - s.unsettled);
    s.count = count > kMost - s.count ? kMost : s.count + count;
}

bool possible(const Statistics& s) {
    return s.importance >= 0 && s.importance <= kLargest && s.unsettled >= 0 && s.unsettled <= 1;
}

}  // namespace springtide
