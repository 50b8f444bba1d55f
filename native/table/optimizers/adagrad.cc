// Adagrad, one accumulator per weight (Duchi, Hazan and Singer, JMLR 12, 2011, diagonal form, figure 1):
//     state[i] += g[i]^2;  w[i] -= learning_rate * g[i] / sqrt(state[i] + 1e-7)
// with the small constant inside the root, as in Keras.
#include <cmath>

#include "table/fixed_dim.h"
#include "table/optimizers/dot.h"
#include "table/optimizers/optimizer.h"

namespace springtide {
namespace {

constexpr float kEpsilon = 1e-7f;

class Adagrad final : public Optimizer {
public:
    explicit Adagrad(const OptimizerOptions& options) : options_(options) {}

    size_t state_floats(size_t dim) const override { return dim; }

    void init(float* state, size_t dim) const override {
        for (size_t i = 0; i < dim; ++i) state[i] = options_.initial_accumulator;
    }

    bool valid_state(const float* state, size_t dim) const override {
        for (size_t i = 0; i < dim; ++i)
            if (state[i] < 0) return false;
        return true;
    }

    float step(float* weights, float* state, const float* gradient, size_t dim) const override {
        return sum_of_blocks(dim, [&](size_t start, auto n) {
            return step_block(weights + start, state + start, gradient + start, n);
        });
    }

private:
    template <class N>
    float step_block(float* __restrict weights, float* __restrict state, const float* gradient, N n) const {
        float steps[kBlock];
        for (size_t i = 0; i < n; ++i) {
            const float g = gradient[i];
            state[i] = to_finite(state[i] + g * g);
            steps[i] = options_.learning_rate * g / std::sqrt(state[i] + kEpsilon);
            weights[i] = to_finite(weights[i] - steps[i]);
        }
        return dot(steps, steps, n);
    }

    OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adagrad(const OptimizerOptions& options) { return std::make_unique<Adagrad>(options); }

}  // namespace springtide
