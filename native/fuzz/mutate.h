// Bytes a little different from other bytes: what the fuzz driver tries next.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

using Bytes = std::vector<uint8_t>;

// `from` after one to eight small changes (flipped bits, odd numbers, pieces cut, doubled or taken from `other`), at most
// `most` bytes long. The same state of `random` gives the same bytes.
Bytes mutate(Bytes from, const Bytes& other, size_t most, std::mt19937_64& random);
