// How frequent keys are, from the distance between their occurrences: pipeline/trainer/items/frequency.py has the
// formulas and their source.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace springtide {

// A cell of a hash table, also in stored versions: packed.
#pragma pack(push, 1)
struct FrequencyCell {
    int64_t last;    // position of the last occurrence
    double gap;      // estimated distance between two
    uint32_t count;  // number of occurrences, at most 2^32 - 1
};
#pragma pack(pop)
static_assert(sizeof(FrequencyCell) == 20);

// Counts the occurrences of cells[buckets[0]], cells[buckets[1]] ... at the positions first, first + 1 ..., one after
// the other; a new distance has at least the weight `rate`. Requires every bucket to be the number of a cell. Not
// thread-safe.
void advance_frequencies(FrequencyCell* cells, std::span<const int64_t> buckets, int64_t first, double rate);

}  // namespace springtide
