// Reads ranges of a file, as a disk serves them best: all are announced to the system before the first is waited for.
//
// Ranges that follow one another are one read. Thread-safe; takes no lock. Failure: std::invalid_argument with the
// system's message; bytes beyond the end of the file are zeros, which no checksum of a block matches.
#pragma once

#include <cstdint>
#include <span>

namespace springtide {

// Range i has lengths[i] bytes from offsets[i] on; `out` receives them one after another.
void read_ranges(int descriptor, std::span<const uint64_t> offsets, std::span<const uint32_t> lengths, uint8_t* out);

}  // namespace springtide
