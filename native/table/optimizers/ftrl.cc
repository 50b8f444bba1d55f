// FTRL-proximal with L1 and L2 (McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013, algorithm 1):
//     sigma = (sqrt(n[i] + g[i]^2) - sqrt(n[i])) / learning_rate;  z[i] += g[i] - sigma w[i];  n[i] += g[i]^2
//     w[i] = 0 where |z[i]| <= l1, else -(z[i] - sign(z[i]) l1) / ((beta + sqrt(n[i])) / learning_rate + l2)
// State: z, n, both 0 at first. A row keeps the first weights it was given until its first step.
#include <cmath>

#include "table/optimizers/dot.h"
#include "table/fixed_dim.h"
#include "table/optimizers/optimizer.h"

namespace springtide {
namespace {

class Ftrl final : public Optimizer {
public:
    explicit Ftrl(const OptimizerOptions& options) : options_(options) {}

    size_t state_floats(size_t dim) const override { return 2 * dim; }

    void start(float* state, size_t dim) const override {
        for (size_t i = 0; i < 2 * dim; ++i) state[i] = 0;
    }

    bool accepts(const float* state, size_t dim) const override {
        for (size_t i = 0; i < dim; ++i)
            if (state[dim + i] < 0) return false;
        return true;
    }

    float step(float* weights, float* state, const float* gradient, size_t dim) const override {
        return sum_of_blocks(dim, [&](size_t start, auto n) {
            return step_block(weights + start, state + start, state + dim + start, gradient + start, n);
        });
    }

private:
    template <class N>
    float step_block(float* __restrict weights, float* __restrict z, float* __restrict squares, const float* gradient,
                     N n) const {
        float taken[kBlock];
        for (size_t i = 0; i < n; ++i) {
            const float g = gradient[i], root = std::sqrt(squares[i]);
            squares[i] = stored(squares[i] + g * g);
            const float grown = std::sqrt(squares[i]), sigma = (grown - root) / options_.learning_rate;
            z[i] = stored(z[i] + (g - sigma * weights[i]));
            const float beyond = std::fabs(z[i]) - options_.l1;
            const float scale = (options_.beta + grown) / options_.learning_rate + options_.l2;
            const float w = beyond > 0 ? stored(-std::copysign(beyond, z[i]) / scale) : 0.0f;
            taken[i] = weights[i] - w;
            weights[i] = w;
        }
        return dot(taken, taken, n);
    }

    OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_ftrl(const OptimizerOptions& options) { return std::make_unique<Ftrl>(options); }

}  // namespace springtide
