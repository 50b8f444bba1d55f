// Rows gathered until there is one for every lane of a register, which is how the quantizer's kernels take them.
//
// Internal to the quantizer. Not thread-safe; each call has its own.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "simd/kernels/quantizer.h"

namespace springtide {

// The kernels of the level in use, and of codes of 2, 4 or 8 bits.
const QuantizerKernels& quantizer_kernels();
const CodeKernels& code_kernels(const QuantizerKernels& kernels, unsigned bits);

// Space for up to 16 turned rows, aligned to a register; on the stack where rows are short.
class TurnedRows {
public:
    explicit TurnedRows(size_t dim) : long_(dim > kShort ? dim : 0) {}
    float* data() { return long_.empty() ? short_[0].weights : long_[0].weights; }

private:
    static constexpr size_t kShort = 64;
    struct alignas(64) Weights {
        float weights[16];
    };
    Weights short_[kShort];
    std::vector<Weights> long_;
};

// Calls `full(rows, targets)` with as many rows as there are lanes whenever so many were added, and at `finish`, where
// lanes without a row repeat the last one.
template <class Target>
class Lanes {
public:
    explicit Lanes(size_t lanes) : lanes_(lanes) {}

    template <class Full>
    void add(const float* row, Target target, Full full) {
        rows_[held_] = row, targets_[held_] = target;
        if (++held_ < lanes_) return;
        full(rows_.data(), targets_.data());
        held_ = 0;
    }

    template <class Full>
    void finish(Full full) {
        if (held_ == 0) return;
        std::fill(rows_.begin() + held_, rows_.begin() + lanes_, rows_[held_ - 1]);
        std::fill(targets_.begin() + held_, targets_.begin() + lanes_, targets_[held_ - 1]);
        full(rows_.data(), targets_.data());
        held_ = 0;
    }

private:
    const size_t lanes_;
    size_t held_ = 0;
    std::array<const float*, 16> rows_;
    std::array<Target, 16> targets_;
};

}  // namespace springtide
