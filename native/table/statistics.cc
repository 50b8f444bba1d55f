#include "table/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace springtide {
namespace {

constexpr float kSmoothing = 1.0f / 16;  // weight of the latest relative step in the moving average
constexpr uint32_t kMaxCount = std::numeric_limits<uint32_t>::max();
constexpr float kMaxFloat = std::numeric_limits<float>::max();

// 2^-x for x >= 0 with an error of at most 2e-10, exact for integral x: exponent bits for the nearest integer, the
// series of exp for the rest, even and odd terms separately. The library's exp2 differs between versions and
// processors.
double half_to_the(double x) {
    if (!(x < 1000)) return 0.0;
    const auto nearest = static_cast<int64_t>(x + 0.5);
    const double y = (static_cast<double>(nearest) - x) * 0.6931471805599453, y2 = y * y;
    const double even = 1 + y2 * (1.0 / 2 + y2 * (1.0 / 24 + y2 * (1.0 / 720 + y2 * (1.0 / 40320))));
    const double odd = 1 + y2 * (1.0 / 6 + y2 * (1.0 / 120 + y2 * (1.0 / 5040)));
    return (even + y * odd) * std::bit_cast<double>(static_cast<uint64_t>(1023 - nearest) << 52);
}

}  // namespace

void StatisticsUpdater::apply(Statistics& s, const UpdateNorms& norms, uint32_t count, uint32_t at_s) const {
    const float score = std::fabs(norms.gradient_dot_weights);
    const float length = std::sqrt(norms.weights_squared);
    const float step = std::sqrt(norms.step_squared);
    float relative = step > 0 ? step / (step + length) : 0.0f;
    if (!(relative <= 1)) relative = 1;  // lengths that overflow float count as fully unsettled

    if (at_s > s.last_seen_s) {
        s.importance = static_cast<float>(s.importance * half_to_the((at_s - s.last_seen_s) / half_life_s_));
        s.last_seen_s = at_s;
    }
    s.importance += score;
    if (!(s.importance <= kMaxFloat)) s.importance = kMaxFloat;  // finite, because rows are compared by importance
    s.unsettled = s.count == 0 ? relative : s.unsettled + kSmoothing * (relative - s.unsettled);
    s.count = count > kMaxCount - s.count ? kMaxCount : s.count + count;
}

bool valid(const Statistics& s) {
    return s.importance >= 0 && s.importance <= kMaxFloat && s.unsettled >= 0 && s.unsettled <= 1;
}

}  // namespace springtide
