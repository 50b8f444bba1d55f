// The state that FTRL optimizers share: z and n of each weight, both initially 0; n is a sum of squares.
#pragma once

#include "table/optimizers/optimizer.h"

namespace springtide {

class FtrlState : public Optimizer {
public:
    size_t state_floats(size_t dim) const final { return 2 * dim; }

    void init(float* state, size_t dim) const final {
        for (size_t i = 0; i < 2 * dim; ++i) state[i] = 0;
    }

    bool valid_state(const float* state, size_t dim) const final {
        for (size_t i = 0; i < dim; ++i)
            if (state[dim + i] < 0) return false;
        return true;
    }
};

}  // namespace springtide
