// Statistics of a row: count of occurrences, importance, convergence and curvature.
//
// Importance is the first-order Taylor estimate of the change in loss if the row were removed (Molchanov et al., ICLR
// 2017, equation 1; CVPR 2019, equation 7), summed over updates with exponential decay by log time; convergence is
// 1 - unsettled. Curvature is the diagonal of the Gauss-Newton matrix (Schraudolph, Neural Computation 2002), averaged
// over the weights of the row: the sum over samples of the squared gradient, with the same decay. An error e of the
// row costs about 1/2 * curvature * |e|^2 of the summed loss. The reference implementations are in
// tests/support/reference/row_statistics.py. Thread-safe for different rows. The square root is the only library
// function used, so the bytes are the same on every machine.
#pragma once

#include <cstdint>

namespace springtide {

struct Statistics {
    uint32_t count;        // occurrences in the batches that updated the row; saturates at the largest uint32
    uint32_t last_seen_s;  // log time of the latest occurrence, or of the admission, seconds since 1970
    float importance;      // decayed sum of |<gradient, weights>|, as of last_seen_s
    float unsettled;       // moving average of the relative step; 1 before the first update
    float curvature;       // decayed sum over samples of |gradient|^2 / dim, as of last_seen_s
};

static_assert(sizeof(Statistics) == 20 && alignof(Statistics) == 4, "statistics are part of the packed row");

// Quantities of one update of a row: the inner product of gradient and weights and the squared length of the weights,
// both before the step; the sum over samples of the squared length of the gradient, divided by dim; the squared length of
// the step.
struct UpdateNorms {
    float gradient_dot_weights;
    float weights_squared;
    float sample_squares;
    float step_squared;
};

class StatisticsUpdater {
public:
    // half_life_s > 0: importance and curvature decay to half in this many seconds of log time.
    explicit StatisticsUpdater(double half_life_s) : half_life_s_(half_life_s) {}

    double half_life_s() const { return half_life_s_; }

    // Applies an update at at_s with `count` occurrences. last_seen_s never decreases.
    void apply(Statistics& s, const UpdateNorms& norms, uint32_t count, uint32_t at_s) const;

private:
    double half_life_s_;
};

// Whether the values are in their ranges.
bool valid(const Statistics& s);

}  // namespace springtide
