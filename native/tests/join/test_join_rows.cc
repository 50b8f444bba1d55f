// The rows of the join without Python: all boundaries of closing, and extents over several partitions.
#include "join/join_rows.h"

#include <array>
#include <vector>

#include "tests/expect.h"

namespace {

using namespace springtide;

HeldRow row_at(int64_t at_ms, uint8_t flags = 0, bool closed = false) {
    HeldRow row{};
    row.at_ms = at_ms;
    row.flags = flags;
    row.closed = closed;
    return row;
}

void closes_up_to_and_including_a_time() {
    std::array<HeldRow, 5> rows{row_at(1), row_at(2), row_at(3), row_at(2, 4), row_at(1, 0, true)};
    std::vector<int64_t> to_emit;
    expect(close_rows(rows, 0, rows.size(), 2, {4, {}}, to_emit) == 3, "later rows stay open");
    expect(to_emit == std::vector<int64_t>{0, 1}, "excluded and closed rows are not emitted");
    expect(rows[3].closed == 1 && rows[2].closed == 0, "excluded rows are closed too");
    expect(!close_rows(rows, 0, 2, 9, {4, {}}, to_emit), "no row of the range is open");
    expect(!close_rows(rows, 2, 3, 3, {0, 0}, to_emit) && to_emit.size() == 2, "no id is below 0");
}

void the_extent_covers_all_partitions() {
    std::array<HeldRow, 4> rows{row_at(5), row_at(-3, 0, true), row_at(9), row_at(0)};
    for (int32_t i = 0; i < 4; ++i) {
        rows[static_cast<size_t>(i)].partition = i % 2;
        rows[static_cast<size_t>(i)].offset = 10 - i;
    }
    const Extent extent = extent_of(rows);
    expect(extent.lowest_at_ms == -3 && extent.latest_at_ms == 9 && extent.open == 3, "times and open rows");
    expect(extent.lowest_offsets == std::vector<std::pair<int32_t, int64_t>>{{0, 8}, {1, 7}}, "offsets");
}

void gathers_rows_of_several_chunks() {
    const std::array<HeldRow, 2> one{row_at(1), row_at(2)};
    const std::array<HeldRow, 1> other{row_at(3, 4, true)};
    const std::array<const HeldRow*, 2> chunks{one.data(), other.data()};
    const std::array<uint64_t, 4> places{uint64_t{1} << 32, 1, 0, 1};
    std::array<HeldRow, 4> out;
    gather_rows(places, chunks.data(), out.data());
    expect(out[0].at_ms == 3 && out[0].flags == 4 && out[0].closed == 1, "the second chunk");
    expect(out[1].at_ms == 2 && out[2].at_ms == 1 && out[3].at_ms == 2, "the first chunk");
}

void fills_rows_and_gathers_sources() {
    const std::array<uint64_t, 4> ids{1, 2, 3, 4};
    const std::array<int64_t, 2> at{10, 11}, offsets{20, 21};
    const std::array<int32_t, 2> numbers{30, 31};
    const std::array<uint8_t, 2> flags{1, 2};
    std::array<HeldRow, 2> rows;
    fill_held({ids.data(), at.data(), offsets.data(), numbers.data(), flags.data(), 7}, rows);
    expect(rows[1].id[0] == 3 && rows[1].id[1] == 4 && rows[1].flags == 2 && rows[1].closed == 0, "filled");
    const std::array<int64_t, 3> chosen{1, 0, 1};
    std::array<int64_t, 3> out_at, out_offsets;
    std::array<int32_t, 3> out_partitions, out_rows;
    gather_sources(rows, chosen, {out_at.data(), out_offsets.data(), out_partitions.data(), out_rows.data()});
    expect(out_at == std::array<int64_t, 3>{11, 10, 11}, "gathered times");
    expect(out_offsets == std::array<int64_t, 3>{21, 20, 21}, "gathered offsets");
    expect(out_partitions[0] == 7 && out_rows == std::array<int32_t, 3>{31, 30, 31}, "gathered");
}

}  // namespace

int main() {
    gathers_rows_of_several_chunks();
    closes_up_to_and_including_a_time();
    the_extent_covers_all_partitions();
    fills_rows_and_gathers_sources();
}
