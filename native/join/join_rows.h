// The join's rows: a held impression as it lies in memory, and the work done on each of them.
//
// The layout is that of HELD (pipeline/samples/join/rows.py) and of the state file. Decides nothing: what flags mean and when
// windows close, the caller says. Pure functions over the caller's arrays, safe from any thread, linear time; they trust
// numbers of rows and throw std::bad_alloc alone.
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
    int64_t at, offset;
    int32_t partition, row;
    uint8_t status, closed;  // flags; 0 or 1
    uint8_t unused[6];
};

static_assert(sizeof(HeldRow) == 48, "rows are stored and shared with NumPy");

// Events of one partition as columns of one length.
struct EventColumns {
    const uint64_t* ids;  // [n][2]
    const int64_t *at, *offsets;
    const int32_t* rows;
    const uint8_t* status;
    int32_t partition;
};

// out[i] = event i, open or closed as `closed` says.
void fill_held(const EventColumns& events, bool closed, std::span<HeldRow> out);

// What rows span; at least one row.
struct Extent {
    int64_t lowest_at, latest_at;
    size_t open;                                               // rows that are not closed
    std::vector<std::pair<int32_t, int64_t>> lowest_offsets;  // by partition, in the order they occur
};
Extent extent_of(std::span<const HeldRow> rows);

// Which closed rows are told: those with none of the flags `said`, and the second half of their id below `ids_below`.
struct Telling {
    uint8_t said;
    std::optional<uint64_t> ids_below;  // none: every id
};

// Closes the open rows from `start` to `stop` with time at most `until`, and appends to `told` the numbers of those to
// tell. Returns the lowest time of a row still open, none where all are closed.
std::optional<int64_t> close_rows(std::span<HeldRow> rows, size_t start, size_t stop, int64_t until,
                                  const Telling& telling, std::vector<int64_t>& told);

// When and from where events came, as columns to be written.
struct SourceColumns {
    int64_t *at, *offsets;
    int32_t *partitions, *rows;
};

// Entry i of every column = that of rows[chosen[i]].
void pick_sources(std::span<const HeldRow> rows, std::span<const int64_t> chosen, const SourceColumns& out);

// out[i] = the row at places[i]: chunk << 32 | row in it.
void rows_at(std::span<const uint64_t> places, const HeldRow* const* chunks, HeldRow* out);

}  // namespace springtide
