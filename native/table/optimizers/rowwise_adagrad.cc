// Row-wise Adagrad, one accumulator per row (as in FBGEMM and TorchRec: Mudigere et al., "Software-Hardware Co-design
// for Fast and Scalable Training of Deep Learning Recommendation Models", ISCA 2022, section 4.1.4):
//     state += mean(g^2);  w[i] -= learning_rate * g[i] / sqrt(state + 1e-7)
// with the small constant inside the root, as in adagrad.cc.
#include <cmath>

#include "table/fixed_dim.h"
#include "table/optimizers/dot.h"
#include "table/optimizers/optimizer.h"

namespace springtide {
namespace {

constexpr float kEpsilon = 1e-7f;

class RowwiseAdagrad final : public Optimizer {
public:
    explicit RowwiseAdagrad(const OptimizerOptions& options) : options_(options) {}

    size_t state_floats(size_t) const override { return 1; }

    void init(float* state, size_t) const override { *state = options_.initial_accumulator; }

    bool valid_state(const float* state, size_t) const override { return *state >= 0; }

    float step(float* __restrict weights, float* state, const float* gradient, size_t dim) const override {
        return with_dim(dim, [&](auto n) {
            const float squares = dot(gradient, gradient, n);
            *state = to_finite(*state + squares / static_cast<float>(n));
            const float rate = options_.learning_rate / std::sqrt(*state + kEpsilon);
            for (size_t i = 0; i < n; ++i) weights[i] = to_finite(weights[i] - rate * gradient[i]);
            return rate * rate * squares;
        });
    }

private:
    OptimizerOptions options_;
};

}  // namespace

std::unique_ptr<Optimizer> make_rowwise_adagrad(const OptimizerOptions& options) {
    return std::make_unique<RowwiseAdagrad>(options);
}

}  // namespace springtide
