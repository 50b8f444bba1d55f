// Initial weights of a row: uniform in (-scale, scale), a function of (seed, key, index) alone.
//
// There is no generator state: the weights of a key depend neither on earlier keys nor on the shard. The values are
// part of the determinism of training and must never change. Thread-safe.
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
