#include "join/join_rows.h"

#include <algorithm>

namespace springtide {
namespace {

void count_offset(Extent& extent, const HeldRow& row) {
    auto& lowest = extent.lowest_offsets;
    auto of = std::find_if(lowest.begin(), lowest.end(), [&](const auto& known) { return known.first == row.partition; });
    if (of == lowest.end())
        lowest.emplace_back(row.partition, row.offset);
    else
        of->second = std::min(of->second, row.offset);
}

bool to_tell(const HeldRow& row, const Telling& telling) {
    return (row.status & telling.said) == 0 && (!telling.ids_below || row.id[1] < *telling.ids_below);
}

}  // namespace

void fill_held(const EventColumns& events, bool closed, std::span<HeldRow> out) {
    for (size_t i = 0; i < out.size(); ++i)
        out[i] = {{events.ids[2 * i], events.ids[2 * i + 1]}, events.at[i],     events.offsets[i], events.partition,
                  events.rows[i],                              events.status[i], closed,            {}};
}

Extent extent_of(std::span<const HeldRow> rows) {
    Extent extent{rows[0].at, rows[0].at, 0, {}};
    for (const HeldRow& row : rows) {
        extent.lowest_at = std::min(extent.lowest_at, row.at);
        extent.latest_at = std::max(extent.latest_at, row.at);
        extent.open += row.closed == 0;
        count_offset(extent, row);
    }
    return extent;
}

std::optional<int64_t> close_rows(std::span<HeldRow> rows, size_t start, size_t stop, int64_t until,
                                  const Telling& telling, std::vector<int64_t>& told) {
    std::optional<int64_t> lowest;
    for (size_t i = start; i < stop; ++i) {
        HeldRow& row = rows[i];
        if (row.closed) continue;
        if (row.at > until) {
            lowest = std::min(lowest.value_or(row.at), row.at);
            continue;
        }
        row.closed = 1;
        if (to_tell(row, telling)) told.push_back(static_cast<int64_t>(i));
    }
    return lowest;
}

void pick_sources(std::span<const HeldRow> rows, std::span<const int64_t> chosen, const SourceColumns& out) {
    for (size_t i = 0; i < chosen.size(); ++i) {
        const HeldRow& row = rows[static_cast<size_t>(chosen[i])];
        out.at[i] = row.at;
        out.offsets[i] = row.offset;
        out.partitions[i] = row.partition;
        out.rows[i] = row.row;
    }
}

void rows_at(std::span<const uint64_t> places, const HeldRow* const* chunks, HeldRow* out) {
    for (const uint64_t place : places) *out++ = chunks[place >> 32][place & 0xFFFFFFFF];
}

}  // namespace springtide
