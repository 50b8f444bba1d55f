// Arrays as a sorted run, and back: a value is a row of every column, one after the other, and a rest of its own length.
#pragma once

#include <vector>

#include "runs/sorted_run.h"

namespace springtide {

// `count` rows of `width` bytes.
struct Column {
    const uint8_t* rows;
    size_t width;
};

// What is encoded: keys [n] with their values, and keys that are removed, both ascending. A key in both is put.
struct RunArrays {
    std::span<const uint64_t> keys, removed;
    std::span<const Column> columns;  // [n] rows each
    const uint8_t* rest;              // of all keys, one after the other; null without one
    const uint32_t* rest_bytes;       // [n]; null without a rest
};

Run encode_run(const RunArrays& arrays, size_t block_bytes);

struct DecodedRun {
    std::vector<uint64_t> keys, removed;
    std::vector<std::vector<uint8_t>> columns;
    std::vector<uint8_t> rest;
    std::vector<uint32_t> rest_bytes;
};

// `widths`: of the columns. Rejects a value shorter than they are, and without `with_rest` one that is longer.
DecodedRun decode_run(const RunView& run, std::span<const size_t> widths, bool with_rest);

}  // namespace springtide
