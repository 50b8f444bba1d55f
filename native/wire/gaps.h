// Ascending integers as LEB128 gaps: each difference to the one before, seven bits a byte, lowest first; a byte with the
// high bit set is followed by another of the same gap.
//
// Pure functions over the caller's memory, safe from any thread. Reading is safe with any bytes. Linear.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

// Appends what spells `values`, n of them, ascending; equal neighbours are allowed.
void append_gaps(const uint64_t* values, size_t n, std::vector<uint8_t>& spelled);

// How many numbers end in these bytes.
size_t count_gaps(const uint8_t* spelled, size_t size);

// The numbers, as many as count_gaps() says. Returns null, or what is wrong with the bytes: then `values` mean nothing.
[[nodiscard]] const char* read_gaps(const uint8_t* spelled, size_t size, uint64_t* values);

}  // namespace springtide
