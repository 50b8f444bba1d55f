// Rows collected until there is one for each lane of a register, the batch size of the quantizer's kernels.
//
// Internal to the quantizer. Not thread-safe; each call has separate instances.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "simd/kernels/quantizer/quantizer.h"

namespace springtide {

// The kernels of the level in use, and those for codes of 2, 4 or 8 bits.
const QuantizerKernels& quantizer_kernels();
const CodeKernels& code_kernels(const QuantizerKernels& kernels, unsigned bits);

// Space for up to 16 transposed rows, aligned to a register; on the stack for short rows.
class TransposedRows {
public:
    explicit TransposedRows(size_t dim) : long_(dim > kShort ? dim : 0) {}
    float* data() { return long_.empty() ? short_[0].weights : long_[0].weights; }

private:
    static constexpr size_t kShort = 64;
    struct alignas(64) Weights {
        float weights[16];
    };
    Weights short_[kShort];
    std::vector<Weights> long_;
};

// Calls `flush(rows, targets)` with `lanes` rows whenever that many were added, and from finish() for the remaining
// rows; lanes without a row repeat the last one.
template <class Target>
class LaneBatch {
public:
    explicit LaneBatch(size_t lanes) : lanes_(lanes) {}

    template <class Flush>
    void add(const float* row, Target target, Flush flush) {
        rows_[count_] = row, targets_[count_] = target;
        if (++count_ < lanes_) return;
        flush(rows_.data(), targets_.data());
        count_ = 0;
    }

    template <class Flush>
    void finish(Flush flush) {
        if (count_ == 0) return;
        std::fill(rows_.begin() + count_, rows_.begin() + lanes_, rows_[count_ - 1]);
        std::fill(targets_.begin() + count_, targets_.begin() + lanes_, targets_[count_ - 1]);
        flush(rows_.data(), targets_.data());
        count_ = 0;
    }

private:
    const size_t lanes_;
    size_t count_ = 0;
    std::array<const float*, 16> rows_;
    std::array<Target, 16> targets_;
};

}  // namespace springtide
