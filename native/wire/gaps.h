// Gap encoding: ascending integers as LEB128 differences to the previous one, seven bits per byte, lowest first; a byte
// with the high bit set is followed by another byte of the same gap.
//
// Pure functions over the caller's memory, thread-safe, linear. Decoding is safe for any bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace springtide {

// Appends the encoding of n ascending values; duplicates are allowed.
void append_gaps(const uint64_t* values, size_t n, std::vector<uint8_t>& encoded);

// The number of values in these bytes.
size_t count_gaps(const uint8_t* encoded, size_t size);

// Decodes count_gaps() values. Returns null, or a description of the defect: then `values` is unspecified.
[[nodiscard]] const char* read_gaps(const uint8_t* encoded, size_t size, uint64_t* values);

}  // namespace springtide
