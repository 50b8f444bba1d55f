// FTRL-proximal with L1 and L2 (McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013, algorithm
// 1):
//     sigma = (sqrt(n[i] + g[i]^2) - sqrt(n[i])) / learning_rate;  z[i] += g[i] - sigma w[i];  n[i] += g[i]^2
//     w[i] = 0 if |z[i]| <= l1, else -(z[i] - sign(z[i]) l1) / ((beta + sqrt(n[i])) / learning_rate + l2)
// State: z, n, both initially 0. A row has its initial weights until its first step.
#include <cmath>

#include "table/fixed_dim.h"
#include "table/optimizers/dot.h"
#include "table/optimizers/ftrl_state.h"

namespace springtide {
namespace {

class Ftrl final : public FtrlState {
public:
    explicit Ftrl(const OptimizerOptions& options) : options_(options) {}

    float step(float* weights, float* state, const float* gradient, size_t dim) const override {
        return sum_of_blocks(dim, [&](size_t start, auto n) {
            return step_block(weights + start, state + start, state + dim + start, gradient + start, n);
        });
    }

private:
    template <class N>
    float step_block(float* __restrict weights, float* __restrict z, float* __restrict squares, const float* gradient,
                     N n) const {
        float steps[kBlock];
        for (size_t i = 0; i < n; ++i) {
            const float g = gradient[i], root = std::sqrt(squares[i]);
            squares[i] = to_finite(squares[i] + g * g);
            const float new_root = std::sqrt(squares[i]), sigma = (new_root - root) / options_.learning_rate;
            z[i] = to_finite(z[i] + (g - sigma * weights[i]));
            const float excess = std::fabs(z[i]) - options_.l1;
            const float scale = (options_.beta + new_root) / options_.learning_rate + options_.l2;
            const float w = excess > 0 ? to_finite(-std::copysign(excess, z[i]) / scale) : 0.0f;
            steps[i] = weights[i] - w;
            weights[i] = w;
        }
        return dot(steps, steps, n);
    }

    OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_ftrl(const OptimizerOptions& options) { return std::make_unique<Ftrl>(options); }

}  // namespace springtide
