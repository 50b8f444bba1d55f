"""Rows selected from several batches, compared with PyArrow's concat and take."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrays.block import ARROW_TYPES
from pipeline.arrays.gather import RowSelection
from pipeline.errors import InputError

SCHEMA = pa.schema([("raw", pa.binary()), ("small", pa.int8()), ("real", pa.float32()), *ARROW_TYPES.items()])


def random_value(rng, kind):
    if rng.random() < 0.2:
        return None
    if pa.types.is_list(kind):
        return [random_value(rng, kind.value_type) for _ in range(rng.integers(0, 4))]
    if pa.types.is_string(kind):
        return "é" * int(rng.integers(0, 12))  # on both sides of the longest text that is copied at once
    if pa.types.is_binary(kind):
        return bytes(rng.integers(0, 256, rng.integers(0, 40), np.uint8))
    if pa.types.is_boolean(kind):
        return bool(rng.integers(2))
    return float(rng.integers(100)) if pa.types.is_floating(kind) else int(rng.integers(100))


def random_batch(rng, nulls=True):
    rows = int(rng.integers(0, 60))
    arrays = [pa.array([random_value(rng, field.type) for _ in range(rows)], field.type) for field in SCHEMA]
    if not nulls:
        arrays = [a if pa.types.is_list(a.type) else a.fill_null(_zero(a.type)) for a in arrays]
    start = int(rng.integers(0, rows + 1))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA).slice(start, int(rng.integers(0, 60)))


def _zero(kind):
    return pa.scalar(False if pa.types.is_boolean(kind) else 0).cast(kind) if kind != pa.binary() else b""


def random_selection(rng, batches, rows):
    filled = [i for i, b in enumerate(batches) if b.num_rows]
    chunk = rng.choice(filled, rows if filled else 0)
    row = np.array([rng.integers(batches[c].num_rows) for c in chunk])
    return RowSelection(batches, (chunk.astype(np.uint64) << np.uint64(32)) | row.astype(np.uint64))


def by_arrow(selection):
    starts = np.cumsum([0, *(b.num_rows for b in selection.batches)])
    rows = starts[(selection.places >> np.uint64(32)).astype(int)] + (selection.places & np.uint64(2**32 - 1)).astype(
        int
    )
    return pa.concat_batches(selection.batches).take(pa.array(rows))


@pytest.mark.parametrize("seed", range(30))
def test_gathered_rows_equal_those_of_concat_and_take(seed):
    rng = np.random.default_rng(seed)
    selection = random_selection(
        rng, [random_batch(rng, nulls=seed % 3 > 0) for _ in range(rng.integers(1, 6))], seed * 7
    )
    found = selection.gather()
    found.validate(full=True)
    assert found.equals(by_arrow(selection))


@pytest.mark.parametrize("seed", range(5))
def test_concatenated_selections_select_the_same_rows(seed):
    rng = np.random.default_rng(seed)
    parts = [random_selection(rng, [random_batch(rng), random_batch(rng)], 20) for _ in range(3)]
    joined = RowSelection.concatenate(parts)
    order = rng.permutation(len(joined))
    wanted = pa.concat_batches([p.gather() for p in parts])
    assert joined.gather().equals(wanted)
    assert joined.take(order).gather().equals(wanted.take(pa.array(order)))


def test_an_empty_selection_has_the_schema():
    assert RowSelection.of(random_batch(np.random.default_rng(1)), np.zeros(0, np.int64)).gather().schema == SCHEMA


ONE = pa.record_batch({"x": ["a", "b"]})
BAD = {
    "row": (
        lambda: RowSelection((ONE,), np.array([2], np.uint64)),
        r"places: got one outside of 1 batches of \[2\] rows",
    ),
    "batch": (lambda: RowSelection((ONE,), np.array([1 << 32], np.uint64)), "places: got one outside"),
    "dtype": (lambda: RowSelection((ONE,), np.array([0], np.int64)), r"places: got int64 \[1\], wanted uint64 \[n\]"),
    "shape": (lambda: RowSelection((ONE,), np.zeros((1, 1), np.uint64)), r"places: got uint64 \[1, 1\]"),
    "order": (lambda: RowSelection((ONE,), np.zeros(4, np.uint64)[::2]), "places: got uint64 .* not C-contiguous"),
    "none": (lambda: RowSelection((), np.zeros(0, np.uint64)), "batches: got none"),
    "schema": (
        lambda: RowSelection((ONE, pa.record_batch({"x": [1]})), np.array([1 << 32], np.uint64)),
        "batches: got x: int64",
    ),
    "type": (
        lambda: RowSelection.of(pa.record_batch({"x": pa.array([1], pa.date32())}), np.zeros(1, int)),
        "got date32",
    ),
    "huge": (
        lambda: RowSelection.of(pa.record_batch({"x": ["x" * 2**20]}), np.zeros(2**11, np.int64)),
        "cannot be gathered: offsets leave the values, or all of them 2 GiB",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_selections_are_refused(name):
    make, message = BAD[name]
    with pytest.raises(InputError, match=message):
        make().gather()


@pytest.mark.parametrize("offsets", [[0, 9, 2], [0, -1, 2], [0, 3, 2, 2]])
def test_offsets_outside_the_text_are_refused(offsets):
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32)), pa.py_buffer(b"ab")]
    broken = pa.RecordBatch.from_arrays([pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)], ["x"])
    with pytest.raises(InputError, match="column of string cannot be gathered: offsets leave the values"):
        RowSelection.of(broken, np.array([1])).gather()
