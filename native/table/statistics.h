// Statistics of a row: how often it was seen, how much it matters to the loss, how settled it is.
//
// Importance is the first-order Taylor estimate of what the loss would lose without the row (Molchanov et al., ICLR 2017,
// equation 1; CVPR 2019, equation 7), summed over updates with exponential decay by log time; convergence is
// 1 - unsettled. The references are pipeline/importance/score.py and convergence.py. Safe from any thread for different
// rows. No library functions but the square root: the same bytes on every machine.
#pragma once

#include <cstdint>

namespace springtide {

struct Statistics {
    uint32_t count;        // occurrences in the batches this row learned from; stops at the largest uint32
    uint32_t last_seen_s;  // log time of the latest of them, or of the admission, seconds since 1970
    float importance;      // decayed sum of |<gradient, weights>|, as of last_seen_s
    float unsettled;       // moving average of the relative step; 1 before the first update
};

static_assert(sizeof(Statistics) == 16 && alignof(Statistics) == 4, "statistics are part of the packed row");

// What one update of a row tells: before the step, the inner product of gradient and weights and the squared length of
// the weights; the squared length of the step.
struct Learned {
    float inner;
    float length_squared;
    float moved_squared;
};

class Tracker {
public:
    // half_life_s > 0: after so many seconds of log time importance counts half.
    explicit Tracker(double half_life_s) : half_life_s_(half_life_s) {}

    // Statistics after an update at at_s with `count` occurrences; time never runs backwards inside a row.
    void note(Statistics& s, const Learned& learned, uint32_t count, uint32_t at_s) const;

private:
    double half_life_s_;
};

// Whether a row can have these statistics.
bool possible(const Statistics& s);

}  // namespace springtide
