// Frequencies without Python: cells are those of one occurrence at a time, and counts saturate.
#include "batch/frequency.h"

#include <limits>
#include <random>
#include <vector>

#include "tests/expect.h"

namespace {

using springtide::advance_frequencies;
using springtide::FrequencyCell;

void any_cut_gives_the_same_cells() {
    std::mt19937_64 random(1);
    std::vector<int64_t> buckets(500);
    for (int64_t& bucket : buckets) bucket = static_cast<int64_t>(random() % 7);
    std::vector<FrequencyCell> whole(7), cut(7);
    advance_frequencies(whole.data(), buckets, 10, 0.05);
    for (size_t i = 0; i < buckets.size(); ++i)
        advance_frequencies(cut.data(), {&buckets[i], 1}, 10 + static_cast<int64_t>(i), 0.05);
    for (size_t i = 0; i < whole.size(); ++i) {
        const FrequencyCell one = whole[i], other = cut[i];
        expect(one.last == other.last && one.gap == other.gap && one.count == other.count, "a cell after any cut");
    }
}

void the_gap_is_the_mean_distance_and_then_follows_the_newest() {
    FrequencyCell cell{};
    const int64_t bucket = 0;
    const int64_t positions[] = {4, 10, 12};
    const double gaps[] = {5.0, 6.0, 4.0};
    for (int i = 0; i < 3; ++i) {
        advance_frequencies(&cell, {&bucket, 1}, positions[i], 0.25);
        const double gap = cell.gap;
        expect(gap == gaps[i], "the first gap is t + 1, later ones are means");
    }
    for (int64_t at = 13; at < 100; ++at) advance_frequencies(&cell, {&bucket, 1}, at, 0.25);
    const double gap = cell.gap;
    expect(gap > 1.0 && gap < 1.001, "the newest distances decide");
}

void counts_saturate() {
    FrequencyCell cell{7, 2.0, std::numeric_limits<uint32_t>::max()};
    const int64_t bucket = 0;
    advance_frequencies(&cell, {&bucket, 1}, 8, 0.5);
    const uint32_t count = cell.count;
    expect(count == std::numeric_limits<uint32_t>::max(), "a full count stays");
    const double gap = cell.gap;
    expect(gap == 1.5, "a full count still moves the gap");
}

}  // namespace

int main() {
    any_cut_gives_the_same_cells();
    the_gap_is_the_mean_distance_and_then_follows_the_newest();
    counts_saturate();
}
