// First weights of a row: uniform in (-scale, scale), drawn from (seed, key, index) alone.
//
// Not from a running generator: a key gets the same weights whatever arrived before it and on whichever shard it lives.
// The values are part of what makes training repeatable, so they never change. Safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace springtide {

class UniformInitializer {
public:
    UniformInitializer(uint64_t seed, float scale) : seed_(seed), scale_(scale) {}

    // Writes weights[0..dim).
    void fill(uint64_t key, float* weights, size_t dim) const;

private:
    uint64_t seed_;
    float scale_;
};

}  // namespace springtide
