#include "join/join_rows.h"

#include <algorithm>

namespace springtide {
namespace {

void count_offset(Extent& extent, const HeldRow& row) {
    auto& lowest = extent.lowest_offsets;
    const auto of_partition = [&](const auto& entry) { return entry.first == row.partition; };
    const auto found = std::find_if(lowest.begin(), lowest.end(), of_partition);
    if (found == lowest.end())
        lowest.emplace_back(row.partition, row.offset);
    else
        found->second = std::min(found->second, row.offset);
}

bool passes(const HeldRow& row, const EmissionFilter& filter) {
    return (row.flags & filter.excluded_flags) == 0 && (!filter.ids_below || row.id[1] < *filter.ids_below);
}

}  // namespace

void fill_held(const EventColumns& events, std::span<HeldRow> out) {
    for (size_t i = 0; i < out.size(); ++i)
        out[i] = {{events.ids[2 * i], events.ids[2 * i + 1]}, events.at_ms[i],  events.offsets[i], events.partition,
                  events.rows[i],                             events.flags[i], 0,                 {}};
}

Extent extent_of(std::span<const HeldRow> rows) {
    Extent extent{rows[0].at_ms, rows[0].at_ms, 0, {}};
    for (const HeldRow& row : rows) {
        extent.lowest_at_ms = std::min(extent.lowest_at_ms, row.at_ms);
        extent.latest_at_ms = std::max(extent.latest_at_ms, row.at_ms);
        extent.open += row.closed == 0;
        count_offset(extent, row);
    }
    return extent;
}

std::optional<int64_t> close_rows(std::span<HeldRow> rows, size_t start, size_t stop, int64_t until_ms,
                                  const EmissionFilter& filter, std::vector<int64_t>& to_emit) {
    std::optional<int64_t> lowest;
    for (size_t i = start; i < stop; ++i) {
        HeldRow& row = rows[i];
        if (row.closed) continue;
        if (row.at_ms > until_ms) {
            lowest = std::min(lowest.value_or(row.at_ms), row.at_ms);
            continue;
        }
        row.closed = 1;
        if (passes(row, filter)) to_emit.push_back(static_cast<int64_t>(i));
    }
    return lowest;
}

void gather_sources(std::span<const HeldRow> rows, std::span<const int64_t> chosen, const SourceColumns& out) {
    for (size_t i = 0; i < chosen.size(); ++i) {
        const HeldRow& row = rows[static_cast<size_t>(chosen[i])];
        out.at_ms[i] = row.at_ms;
        out.offsets[i] = row.offset;
        out.partitions[i] = row.partition;
        out.rows[i] = row.row;
    }
}

void gather_rows(std::span<const uint64_t> places, const HeldRow* const* chunks, HeldRow* out) {
    for (const uint64_t place : places) *out++ = chunks[place >> 32][place & 0xFFFFFFFF];
}

}  // namespace springtide
