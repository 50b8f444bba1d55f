// FTRL-proximal with L1, L2 and group lasso, which sets complete rows to zero (Yue et al., "Adaptive optimizers with
// sparse group lasso for neural networks in CTR prediction", ECML PKDD 2021, theorem 1, with z and n as in ftrl.cc):
//     q[i] = (beta + sqrt(n[i])) / learning_rate + l2;  s[i] = sign(z[i]) max(|z[i]| - l1, 0)
//     w[i] = -s[i] / q[i] * max(1 - l21 sqrt(dim) / |s / sqrt(q)|, 0)
// the minimiser of z.w + 1/2 sum q w^2 + l1 |w|_1 + l21 sqrt(dim) |sqrt(q) w|_2. State: z, n, both initially 0.
#include <cmath>

#include "table/fixed_dim.h"
#include "table/optimizers/dot.h"
#include "table/optimizers/ftrl_state.h"

namespace springtide {
namespace {

class GroupFtrl final : public FtrlState {
public:
    explicit GroupFtrl(const OptimizerOptions& options) : options_(options) {}

    float step(float* weights, float* state, const float* gradient, size_t dim) const override {
        float *z = state, *n = state + dim;
        accumulate(z, n, weights, gradient, dim);
        const float length_squared =
            sum_of_blocks(dim, [&](size_t start, auto count) { return length_of(z + start, n + start, count); });
        const float threshold = options_.l21 * std::sqrt(static_cast<float>(dim));
        // Not 1 - threshold / length, because the length may be 0.
        const float length = std::sqrt(length_squared);
        const float share = length > threshold ? (length - threshold) / length : 0.0f;
        return sum_of_blocks(dim, [&](size_t start, auto count) {
            return solve(weights + start, z + start, n + start, share, count);
        });
    }

private:
    float curvature(float n) const {
        return (options_.beta + std::sqrt(n)) / options_.learning_rate + options_.l2;
    }

    // s[i]
    float soft_threshold(float z) const {
        const float excess = std::fabs(z) - options_.l1;
        return excess > 0 ? std::copysign(excess, z) : 0.0f;
    }

    void accumulate(float* z, float* n, const float* weights, const float* gradient, size_t dim) const {
        for (size_t i = 0; i < dim; ++i) {
            const float g = gradient[i], root = std::sqrt(n[i]);
            n[i] = to_finite(n[i] + g * g);
            const float sigma = (std::sqrt(n[i]) - root) / options_.learning_rate;
            z[i] = to_finite(z[i] + (g - sigma * weights[i]));
        }
    }

    // |s / sqrt(q)|^2
    float length_of(const float* z, const float* n, size_t count) const {
        float scaled[kBlock];
        for (size_t i = 0; i < count; ++i) scaled[i] = soft_threshold(z[i]) / std::sqrt(curvature(n[i]));
        return dot(scaled, scaled, count);
    }

    float solve(float* weights, const float* z, const float* n, float share, size_t count) const {
        float steps[kBlock];
        for (size_t i = 0; i < count; ++i) {
            const float w = share > 0 ? to_finite(-soft_threshold(z[i]) / curvature(n[i]) * share) : 0.0f;
            steps[i] = weights[i] - w;
            weights[i] = w;
        }
        return dot(steps, steps, count);
    }

    OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_group_ftrl(const OptimizerOptions& options) {
    return std::make_unique<GroupFtrl>(options);
}

}  // namespace springtide
