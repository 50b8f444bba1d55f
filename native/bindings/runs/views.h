// Runs in arrays of Python: the bytes of blocks, and their index as bytes.
#pragma once

#include <vector>

#include "bindings/arrays.h"
#include "runs/sorted_run.h"

namespace springtide_bindings {

inline springtide::RunView view_of(const In<uint8_t>& bytes, const In<uint8_t>& blocks) {
    return {span_of(bytes), {reinterpret_cast<const springtide::BlockEntry*>(blocks.data()),
                             blocks.size() / sizeof(springtide::BlockEntry)}};
}

inline std::vector<springtide::RunView> views_of(const std::vector<In<uint8_t>>& bytes,
                                                 const std::vector<In<uint8_t>>& blocks) {
    std::vector<springtide::RunView> runs;
    for (size_t i = 0; i < bytes.size(); ++i) runs.push_back(view_of(bytes[i], blocks.at(i)));
    return runs;
}

}  // namespace springtide_bindings
