// Optimizers: the update of a row by its gradient. Each is a class in a separate file and one line in optimizer.cc.
//
// An optimizer has settings only; its state is stored in the row, after the weights. Thread-safe for different rows.
// The caller checks gradients: finite, magnitude at most kGradientLimit.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <string_view>

namespace springtide {

// The largest gradient element a table accepts: the sum of 1,024 squares is still a finite float.
inline constexpr float kGradientLimit = 1e17f;

// The finite float nearest to x; the largest float if x is NaN. Applied to everything an optimizer stores.
inline float to_finite(float x) {
    constexpr float kMaxFloat = std::numeric_limits<float>::max();
    const float below = x < kMaxFloat ? x : kMaxFloat;
    return below > -kMaxFloat ? below : -kMaxFloat;
}

// Settings of all optimizers, named as in the papers.
struct OptimizerOptions {
    float learning_rate = 0;
    float initial_accumulator = 0;  // adagrad, rowwise_adagrad
    float beta1 = 0, beta2 = 0;     // adam
    float epsilon = 0;              // adam
    float beta = 0;                 // ftrl, group_ftrl
    float l1 = 0, l2 = 0;           // ftrl, group_ftrl
    float l21 = 0;                  // group_ftrl
};

class Optimizer {
public:
    virtual ~Optimizer() = default;

    // The number of state floats of a row with `dim` weights.
    virtual size_t state_floats(size_t dim) const = 0;

    // Writes the initial state of a row.
    virtual void init(float* state, size_t dim) const = 0;

    // Whether these finite floats are a possible state.
    virtual bool valid_state(const float* state, size_t dim) const = 0;

    // One step: updates weights and state in place and returns the squared length of the step. Finite input gives
    // finite weights and state, see to_finite().
    virtual float step(float* weights, float* state, const float* gradient, size_t dim) const = 0;
};

std::unique_ptr<Optimizer> make_sgd(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_adagrad(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_rowwise_adagrad(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_adam(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_ftrl(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_group_ftrl(const OptimizerOptions& options);

// The optimizer named `kind`. Throws std::invalid_argument for an unknown name.
std::unique_ptr<Optimizer> make_optimizer(std::string_view kind, const OptimizerOptions& options);

}  // namespace springtide
