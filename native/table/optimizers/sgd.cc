// Stochastic gradient descent (Robbins and Monro, "A stochastic approximation method", 1951): w[i] -= learning_rate *
// g[i].
#include "table/fixed_dim.h"
#include "table/optimizers/dot.h"
#include "table/optimizers/optimizer.h"

namespace springtide {
namespace {

class Sgd final : public Optimizer {
public:
    explicit Sgd(const OptimizerOptions& options) : options_(options) {}

    size_t state_floats(size_t) const override { return 0; }
    void init(float*, size_t) const override {}
    bool valid_state(const float*, size_t) const override { return true; }

    float step(float* weights, float*, const float* gradient, size_t dim) const override {
        const float rate = options_.learning_rate;
        return with_dim(dim, [&](auto n) {
            for (size_t i = 0; i < n; ++i) weights[i] = to_finite(weights[i] - rate * gradient[i]);
            return rate * rate * dot(gradient, gradient, n);
        });
    }

private:
    OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(const OptimizerOptions& options) { return std::make_unique<Sgd>(options); }

}  // namespace springtide
