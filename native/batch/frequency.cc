#include "batch/frequency.h"

#include <algorithm>
#include <limits>

namespace springtide {

void advance_frequencies(FrequencyCell* cells, std::span<const int64_t> buckets, int64_t first, double rate) {
    int64_t at = first;
    for (const int64_t bucket : buckets) {
        FrequencyCell cell = cells[bucket];
        if (cell.count == 0) {
            cell.gap = static_cast<double>(at) + 1.0;
        } else {
            const double weight = std::max(rate, 1.0 / static_cast<double>(cell.count));
            cell.gap = cell.gap + weight * (static_cast<double>(at - cell.last) - cell.gap);
        }
        cell.last = at++;
        if (cell.count < std::numeric_limits<uint32_t>::max()) ++cell.count;
        cells[bucket] = cell;
    }
}

}  // namespace springtide
