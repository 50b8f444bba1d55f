// Mutations of fuzz inputs.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

using Bytes = std::vector<uint8_t>;

// `from` after one to eight small changes (flipped bits, boundary numbers, pieces removed, duplicated or copied from
// `other`), truncated to `max_bytes`. Deterministic in the state of `random`.
Bytes mutate(Bytes from, const Bytes& other, size_t max_bytes, std::mt19937_64& random);
