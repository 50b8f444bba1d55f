#include "table/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "table/decay.h"

namespace springtide {
namespace {

constexpr float kSmoothing = 1.0f / 16;  // weight of the latest relative step in the moving average
constexpr uint32_t kMaxCount = std::numeric_limits<uint32_t>::max();
constexpr float kMaxFloat = std::numeric_limits<float>::max();

// `sum` after `decay`, plus `added`; finite, because rows are compared by such sums.
float decayed_sum(float sum, double decay, float added) {
    const float total = static_cast<float>(sum * decay) + added;
    return total <= kMaxFloat ? total : kMaxFloat;
}

}  // namespace

void StatisticsUpdater::apply(Statistics& s, const UpdateNorms& norms, uint32_t count, uint32_t at_s) const {
    const float score = std::fabs(norms.gradient_dot_weights);
    const float length = std::sqrt(norms.weights_squared);
    const float step = std::sqrt(norms.step_squared);
    float relative = step > 0 ? step / (step + length) : 0.0f;
    if (!(relative <= 1)) relative = 1;  // lengths that overflow float count as fully unsettled

    double decay = 1;
    if (at_s > s.last_seen_s) {
        decay = half_to_the((at_s - s.last_seen_s) / half_life_s_);
        s.last_seen_s = at_s;
    }
    s.importance = decayed_sum(s.importance, decay, score);
    s.curvature = decayed_sum(s.curvature, decay, norms.sample_squares);
    s.unsettled = s.count == 0 ? relative : s.unsettled + kSmoothing * (relative - s.unsettled);
    s.count = count > kMaxCount - s.count ? kMaxCount : s.count + count;
}

bool valid(const Statistics& s) {
    return s.importance >= 0 && s.importance <= kMaxFloat && s.unsettled >= 0 && s.unsettled <= 1 &&
           s.curvature >= 0 && s.curvature <= kMaxFloat;
}

}  // namespace springtide
