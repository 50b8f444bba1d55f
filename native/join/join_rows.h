// The rows of the join: the memory layout of a held impression, and the per-row operations.
//
// The layout is that of HELD (pipeline/samples/held/rows.py) and of the state file. The caller defines the meaning of
// flags and when windows close. Pure functions over the caller's arrays, thread-safe, linear time. Row numbers are not
// checked. Throws std::bad_alloc only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace springtide {

struct HeldRow {
    uint64_t id[2];
    int64_t at_ms, offset;  // event time and source offset
    int32_t partition, row;
    uint8_t flags, closed;  // `closed` is 0 or 1
    uint8_t padding[6];
};

static_assert(sizeof(HeldRow) == 48, "rows are stored and shared with NumPy");

// Events of one partition as columns of equal length.
struct EventColumns {
    const uint64_t* ids;  // [n][2]
    const int64_t *at_ms, *offsets;
    const int32_t* rows;
    const uint8_t* flags;
    int32_t partition;
};

// out[i] = event i, not closed.
void fill_held(const EventColumns& events, std::span<HeldRow> out);

// Event time range, number of open rows, and lowest offset per partition, of at least one row.
struct Extent {
    int64_t lowest_at_ms, latest_at_ms;
    size_t open;                                              // rows that are not closed
    std::vector<std::pair<int32_t, int64_t>> lowest_offsets;  // by partition, in order of first occurrence
};
Extent extent_of(std::span<const HeldRow> rows);

// Selects the closed rows to emit: rows without any of `excluded_flags`, and with the second half of the id below
// `ids_below`.
struct EmissionFilter {
    uint8_t excluded_flags;
    std::optional<uint64_t> ids_below;  // none: all ids
};

// Closes the open rows of [start, stop) with event time at most `until_ms`, and appends the numbers of those that pass
// the filter to `to_emit`. Returns the lowest event time of a row that is still open; none if all are closed.
std::optional<int64_t> close_rows(std::span<HeldRow> rows, size_t start, size_t stop, int64_t until_ms,
                                  const EmissionFilter& filter, std::vector<int64_t>& to_emit);

// Output columns for event times and source positions.
struct SourceColumns {
    int64_t *at_ms, *offsets;
    int32_t *partitions, *rows;
};

// Element i of every column = that of rows[chosen[i]].
void gather_sources(std::span<const HeldRow> rows, std::span<const int64_t> chosen, const SourceColumns& out);

// out[i] = the row at places[i]: chunk << 32 | row in it.
void gather_rows(std::span<const uint64_t> places, const HeldRow* const* chunks, HeldRow* out);

}  // namespace springtide
