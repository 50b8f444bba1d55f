// How a row learns from its gradient. One optimizer is one small file: a class, and one line in optimizer.cc.
//
// An optimizer holds its settings only; the state of a row lies in the row, behind its weights. Safe from any thread for
// different rows. Gradients have been checked by the caller: finite, at most kGradientLimit in size.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <string_view>

namespace springtide {

// Largest gradient element a table accepts: its square, summed over 1,024 of them, is still a float.
inline constexpr float kGradientLimit = 1e17f;

// What an optimizer stores: the float nearest to x that is finite; the largest where x is no number.
inline float stored(float x) {
    constexpr float kLargest = std::numeric_limits<float>::max();
    const float below = x < kLargest ? x : kLargest;
    return below > -kLargest ? below : -kLargest;
}

// Settings of all of them; each reads its own, named as in the papers.
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

    // Floats of state in a row of `dim` weights.
    virtual size_t state_floats(size_t dim) const = 0;

    // Writes the state of a row that has learned nothing.
    virtual void start(float* state, size_t dim) const = 0;

    // Whether these finite floats can be the state of a row.
    virtual bool accepts(const float* state, size_t dim) const = 0;

    // One step: updates weights and state in place; returns the squared length of the step. Whatever finite floats it
    // began with, finite floats are left behind: see stored().
    virtual float step(float* weights, float* state, const float* gradient, size_t dim) const = 0;
};

std::unique_ptr<Optimizer> make_sgd(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_adagrad(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_rowwise_adagrad(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_adam(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_ftrl(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_group_ftrl(const OptimizerOptions& options);

// The optimizer called `kind`. Throws std::invalid_argument where there is none.
std::unique_ptr<Optimizer> make_optimizer(std::string_view kind, const OptimizerOptions& options);

}  // namespace springtide
