// Finds values by key in the runs of several files, of which the newest that has an entry decides.
//
// Of each file about one block is read per key that its filter passes; blocks are read in the order of their places, and
// verified. Pure but for the reads; thread-safe. Failure: std::invalid_argument for a file that cannot be read or is
// damaged.
#pragma once

#include <cstdint>
#include <span>

#include "runs/sorted_run.h"

namespace springtide {

// A run in an open file: `start` is the offset of its first block.
struct RunFile {
    int descriptor;
    uint64_t start;
    std::span<const BlockEntry> blocks;
    std::span<const uint8_t> filter;
};

// For keys[i], which ascend: entries[i] is what the first of `files`, newest first, has for it, and file_of[i] which
// one; a value, of `width` bytes, is written to values + i * width. *reading is the number of the file being read: after
// a failure, the one that failed.
void find_in_files(std::span<const RunFile> files, std::span<const uint64_t> keys, size_t width, uint8_t* values,
                   Entry* entries, uint32_t* file_of, uint32_t* reading);

}  // namespace springtide
