// How a row learns from its gradient. One optimizer is one small file: a class, and one line in optimizer.cc.
//
// An optimizer holds its settings only; the state of a row lies in the row, behind its weights. Safe from any thread for
// different rows. Gradients have been checked by the caller: finite, at most kGradientLimit in size.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace freshet {

// Largest gradient element a table accepts: its square, summed over 1,024 of them, is still a float.
inline constexpr float kGradientLimit = 1e17f;

struct OptimizerOptions {
    float learning_rate;
    float initial_accumulator;
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

    // One step: updates weights and state in place; returns the squared length of the step.
    virtual float step(float* weights, float* state, const float* gradient, size_t dim) const = 0;
};

std::unique_ptr<Optimizer> make_adagrad(const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_rowwise_adagrad(const OptimizerOptions& options);

// The optimizer called `kind`. Throws std::invalid_argument where there is none.
std::unique_ptr<Optimizer> make_optimizer(std::string_view kind, const OptimizerOptions& options);

}  // namespace freshet
