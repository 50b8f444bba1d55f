// Lazy Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1):
//     t += 1;  m[i] = beta1 m[i] + (1 - beta1) g[i];  v[i] = beta2 v[i] + (1 - beta2) g[i]^2
//     w[i] -= learning_rate * (m[i] / (1 - beta1^t)) / (sqrt(v[i] / (1 - beta2^t)) + epsilon)
// Lazy: rows that are not in the batch are unchanged, and t counts the steps of the row. State: t, m, v.
#include <cmath>

#include "table/fixed_dim.h"
#include "table/optimizers/dot.h"
#include "table/optimizers/optimizer.h"

namespace springtide {
namespace {

constexpr float kMaxSteps = 0x1p24f;  // the largest count of consecutive integers in float; beta^t is 0 long before

// base^n by squaring; the library's pow differs between platforms.
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

    void init(float* state, size_t dim) const override {
        for (size_t i = 0; i < state_floats(dim); ++i) state[i] = 0;
    }

    bool valid_state(const float* state, size_t dim) const override {
        if (!(state[0] >= 0 && state[0] <= kMaxSteps && state[0] == std::floor(state[0]))) return false;
        for (size_t i = 0; i < dim; ++i)
            if (state[1 + dim + i] < 0) return false;
        return true;
    }

    float step(float* weights, float* state, const float* gradient, size_t dim) const override {
        state[0] = state[0] < kMaxSteps ? state[0] + 1 : kMaxSteps;
        const auto t = static_cast<uint32_t>(state[0]);
        const auto first = static_cast<float>(1 / (1 - power(options_.beta1, t)));
        const auto second = static_cast<float>(1 / (1 - power(options_.beta2, t)));
        return sum_of_blocks(dim, [&](size_t start, auto n) {
            return step_block(weights + start, state + 1 + start, state + 1 + dim + start, gradient + start, n,
                              {first, second});
        });
    }

private:
    // The bias corrections 1 / (1 - beta^t) of the two averages.
    struct Corrections {
        float first, second;
    };

    template <class N>
    float step_block(float* __restrict weights, float* __restrict m, float* __restrict v, const float* gradient, N n,
                     Corrections correct) const {
        float steps[kBlock];
        for (size_t i = 0; i < n; ++i) {
            const float g = gradient[i];
            m[i] = to_finite(options_.beta1 * m[i] + (1 - options_.beta1) * g);
            v[i] = to_finite(options_.beta2 * v[i] + (1 - options_.beta2) * (g * g));
            steps[i] =
                options_.learning_rate * (m[i] * correct.first) / (std::sqrt(v[i] * correct.second) + options_.epsilon);
            weights[i] = to_finite(weights[i] - steps[i]);
        }
        return dot(steps, steps, n);
    }

    OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adam(const OptimizerOptions& options) { return std::make_unique<Adam>(options); }

}  // namespace springtide
