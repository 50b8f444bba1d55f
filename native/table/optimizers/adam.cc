// Lazy Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1):
//     t += 1;  m[i] = beta1 m[i] + (1 - beta1) g[i];  v[i] = beta2 v[i] + (1 - beta2) g[i]^2
//     w[i] -= learning_rate * (m[i] / (1 - beta1^t)) / (sqrt(v[i] / (1 - beta2^t)) + epsilon)
// Lazy: a row that is not in the batch stays as it is, t counts the row's own steps. State: t, m, v.
#include <cmath>

#include "table/optimizers/dot.h"
#include "table/fixed_dim.h"
#include "table/optimizers/optimizer.h"

namespace springtide {
namespace {

constexpr float kMostSteps = 0x1p24f;  // the last whole number that floats count to; long before it beta^t is 0

// base^n by squaring; the library's pow is not the same everywhere.
double power(double base, uint32_t n) {
    double result = 1.0;
    for (; n > 0; n /= 2, base *= base)
        if (n % 2 == 1) result *= base;
    return result;
}

class Adam final : public Optimizer {
public:
    explicit Adam(const OptimizerOptions& options) : options_(options) {}

    size_t state_floats(size_t dim) const override { return 1 + 2 * dim; }

    void start(float* state, size_t dim) const override {
        for (size_t i = 0; i < state_floats(dim); ++i) state[i] = 0;
    }

    bool accepts(const float* state, size_t dim) const override {
        if (!(state[0] >= 0 && state[0] <= kMostSteps && state[0] == std::floor(state[0]))) return false;
        for (size_t i = 0; i < dim; ++i)
            if (state[1 + dim + i] < 0) return false;
        return true;
    }

    float step(float* weights, float* state, const float* gradient, size_t dim) const override {
        state[0] = state[0] < kMostSteps ? state[0] + 1 : kMostSteps;
        const auto steps = static_cast<uint32_t>(state[0]);
        const auto first = static_cast<float>(1 / (1 - power(options_.beta1, steps)));
        const auto second = static_cast<float>(1 / (1 - power(options_.beta2, steps)));
        return sum_of_blocks(dim, [&](size_t start, auto n) {
            return step_block(weights + start, state + 1 + start, state + 1 + dim + start, gradient + start, n,
                              {first, second});
        });
    }

private:
    // 1 / (1 - beta^t) of the two averages, which begin at 0.
    struct Corrections {
        float first, second;
    };

    template <class N>
    float step_block(float* __restrict weights, float* __restrict m, float* __restrict v, const float* gradient, N n,
                     Corrections correct) const {
        float taken[kBlock];
        for (size_t i = 0; i < n; ++i) {
            const float g = gradient[i];
            m[i] = stored(options_.beta1 * m[i] + (1 - options_.beta1) * g);
            v[i] = stored(options_.beta2 * v[i] + (1 - options_.beta2) * (g * g));
            taken[i] = options_.learning_rate * (m[i] * correct.first) / (std::sqrt(v[i] * correct.second) + options_.epsilon);
            weights[i] = stored(weights[i] - taken[i]);
        }
        return dot(taken, taken, n);
    }

    OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adam(const OptimizerOptions& options) { return std::make_unique<Adam>(options); }

}  // namespace springtide
