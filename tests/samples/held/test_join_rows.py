"""The join's typed rows against the same work in NumPy, row by row."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrays.block import EventBlock
from pipeline.errors import InputError
from pipeline.samples.held.rows import HELD, EmissionFilter, Source, close_rows, extent_of, held_rows, sources_of


def random_rows(seed, n):
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, HELD)
    rows["id"] = rng.integers(0, 2**64, (n, 2), np.uint64)
    rows["at"], rows["offset"] = rng.integers(-50, 50, n), rng.integers(0, 1_000, n)
    rows["partition"], rows["row"] = rng.integers(0, 4, n), np.arange(n)
    rows["flags"], rows["closed"] = rng.integers(0, 8, n), rng.random(n) < 0.3
    return rows


def block_of(n):
    at = np.arange(n) * 7 - 5
    columns = pa.record_batch({"x": pa.array(np.arange(n))})
    return EventBlock("impressions", 3, columns, at, at + 100, np.arange(n, dtype=np.int32), at, 200, 50)


@pytest.mark.parametrize("n", [0, 1, 9])
def test_held_rows_have_a_blocks_columns_and_zeros_between_them(n):
    block = block_of(n)
    ids = np.arange(2 * n, dtype=np.uint64).reshape(n, 2)
    status = np.arange(n, dtype=np.uint8)
    wanted = np.zeros(n, HELD)
    wanted["id"], wanted["at"], wanted["offset"], wanted["row"] = ids, block.at_ms, block.offsets, block.rows
    wanted["partition"], wanted["flags"] = 3, status
    assert held_rows(block, ids, status).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("seed", range(50))
def test_the_extent_is_that_of_all_rows(seed):
    rows = random_rows(seed, 1 + seed % 17)
    extent = extent_of(rows)
    assert (extent.lowest_at, extent.latest_at) == (rows["at"].min(), rows["at"].max())
    assert extent.open == np.count_nonzero(~rows["closed"])
    partitions = set(rows["partition"].tolist())
    assert extent.lowest_offsets == {p: rows["offset"][rows["partition"] == p].min() for p in partitions}


@pytest.mark.parametrize("seed", range(100))
def test_rows_up_to_a_time_close_and_those_that_pass_the_filter_are_emitted(seed):
    rng = np.random.default_rng(seed)
    rows = random_rows(seed, 40)
    start, stop = sorted(rng.integers(0, 41, 2).tolist())
    emission = EmissionFilter(int(rng.integers(0, 8)), None if seed % 2 else int(rng.integers(0, 2**63)) * 2)
    before, at_ms = random_rows(seed, 40), int(rng.integers(-60, 60))
    to_emit, lowest_open = close_rows(rows, (start, stop), at_ms, emission)
    inside = (np.arange(40) >= start) & (np.arange(40) < stop)
    due = inside & ~before["closed"] & (before["at"] <= at_ms)
    not_emitted = before["flags"] & np.uint8(emission.excluded_flags) == 0
    if emission.ids_below is not None:
        not_emitted &= before["id"][:, 1] < np.uint64(emission.ids_below)
    still = before["at"][inside & ~before["closed"] & ~due].tolist()
    assert to_emit.tolist() == np.flatnonzero(due & not_emitted).tolist()
    assert lowest_open == min(still, default=None)
    assert (rows["closed"] == before["closed"] | due).all()
    before["closed"] = rows["closed"]
    assert rows.tobytes() == before.tobytes()


@pytest.mark.parametrize("below", [0, 1, 2**64 - 1])
def test_an_id_below_the_limit_passes_and_one_at_it_does_not(below):
    rows = np.zeros(2, HELD)
    rows["id"][:, 1] = max(0, below - 1), below
    to_emit, _ = close_rows(rows, (0, 2), 0, EmissionFilter(0, below))
    assert to_emit.tolist() == ([0] if below else [])


def test_sources_are_those_of_the_chosen_rows_in_order():
    rows, chosen = random_rows(1, 20), np.array([5, 0, 19, 5])
    source = sources_of(rows, chosen)
    for name in ("at", "offset", "partition", "row"):
        assert getattr(source, name).tolist() == rows[name][chosen].tolist()
        assert getattr(source, name).dtype == HELD[name]
    assert Source.concatenate([source, source]).take(np.array([7, 0])).row.tolist() == [5, 5]
    assert len(sources_of(rows, chosen[:0]).at) == 0


def test_rows_of_another_layout_are_refused():
    for rows in (np.zeros(2, np.uint8), np.zeros((2, 1), HELD), np.zeros(4, HELD)[::2], [1], None):
        for call in (
            extent_of,
            lambda r: close_rows(r, (0, 0), 0, EmissionFilter(0, None)),
            lambda r: sources_of(r, np.zeros(1, np.int64)),
        ):
            with pytest.raises(InputError, match=r"rows: got .*, wanted"):
                call(rows)
    with pytest.raises(InputError, match="rows: got no rows, wanted at least one"):
        extent_of(np.zeros(0, HELD))


@pytest.mark.parametrize("part", [(-1, 2), (0, 4), (2, 1)])
def test_a_part_outside_the_rows_is_refused(part):
    with pytest.raises(InputError, match=rf"part: got {part[0]}\.\.{part[1]}, wanted it in 0\.\.3"):
        close_rows(np.zeros(3, HELD), part, 0, EmissionFilter(0, None))


@pytest.mark.parametrize("chosen", [[-1], [0, 3]])
def test_chosen_rows_outside_the_rows_are_refused(chosen):
    with pytest.raises(InputError, match=r"chosen: got .*, wanted it in 0\.\.2"):
        sources_of(np.zeros(3, HELD), np.array(chosen))
    with pytest.raises(InputError, match=r"chosen: got int32 \[1\], wanted int64 \[m\]"):
        sources_of(np.zeros(3, HELD), np.array([0], np.int32))


def test_columns_that_do_not_fit_the_block_are_refused():
    block, ids, status = block_of(2), np.zeros((2, 2), np.uint64), np.zeros(2, np.uint8)
    with pytest.raises(InputError, match=r"ids: got uint64 \[2, 1\], wanted uint64 \[2, 2\]"):
        held_rows(block, ids[:, :1].copy(), status)
    with pytest.raises(InputError, match=r"flags: got uint8 \[1\], wanted uint8 \[2\]"):
        held_rows(block, ids, status[:1])
