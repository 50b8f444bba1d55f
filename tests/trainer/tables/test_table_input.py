"""The table refuses invalid arguments with what it got and what it wanted, and changes nothing."""

import numpy as np
import pytest

from pipeline.configuration.model.fields import Adagrad
from pipeline.errors import InputError
from pipeline.trainer.tables.table import Table, row_dtype

NOTHING = np.zeros(0, np.uint64)


def make(dim=4, init_scale=0.5, rate=0.1, initial=0.1, half_life_s=500.0):
    optimizer = Adagrad(kind="rowwise_adagrad", learning_rate=rate, initial_accumulator=initial)
    return Table(dim, optimizer, 7, init_scale, half_life_s)


def keys_of(*keys):
    return np.array(keys, np.uint64)


def ones(n):
    return np.ones(n, np.uint32)


BAD_TABLES = {
    "no weights": (dict(dim=0), "dim: got 0"),
    "fewer than no weights": (dict(dim=-3), "dim: got -3"),
    "too many weights": (dict(dim=1025), "dim: got 1025"),
    "half a weight": (dict(dim=1.5), "dim: got 1.5"),
    "negative scale": (dict(init_scale=-0.1), "init_scale: got -0.1"),
    "scale without number": (dict(init_scale=float("nan")), "init_scale: got nan"),
    "half-life of nothing": (dict(half_life_s=0.0), "half_life_s: got 0"),
    "learning rate that is 0 as float32": (dict(rate=1e-60), "learning_rate: got 1e-60"),
    "accumulator that is 0 as float32": (dict(initial=1e-60), "initial_accumulator: got 1e-60"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_table_is_not_made_with(name):
    arguments, message = BAD_TABLES[name]
    with pytest.raises(InputError, match=message):
        make(**arguments)


@pytest.mark.parametrize("dim", [1, 1024])
def test_table_is_made_with_the_least_and_the_most_weights(dim):
    table = make(dim=dim)
    assert table.admit(keys_of(1), 0) == 1
    assert table.lookup(keys_of(1)).shape == (1, dim)


@pytest.mark.parametrize(
    "call",
    [
        lambda t, keys: t.admit(keys, 1),
        lambda t, keys: t.contains(keys),
        lambda t, keys: t.lookup(keys),
        lambda t, keys: t.update(keys, np.zeros((2, 4), np.float32), ones(2), 1),
        lambda t, keys: t.remove(keys),
        lambda t, keys: t.rows(keys),
        lambda t, keys: t.statistics(keys),
        lambda t, keys: t.import_rows(keys, np.zeros(2, t.row_dtype)),
    ],
)
@pytest.mark.parametrize(
    "keys",
    [
        np.int64([1, 2]),
        np.uint64([[1, 2]]),
        np.arange(4, dtype=np.uint64)[::2],
        np.arange(2, dtype=np.uint64)[::-1],
        np.broadcast_to(np.uint64(1), 2**31),
        np.frombuffer(bytes(17), np.uint8)[1:].view(np.uint64),  # not aligned
        np.uint64([1, 2]).astype(">u8"),
        np.uint64(1),
        [1, 2],
        None,
        3.5,
    ],
)
def test_every_call_refuses_keys_that_are_no_plain_uint64_vector(call, keys):
    table = make()
    table.admit(keys_of(1, 2), 1)
    with pytest.raises(InputError, match=r"keys: got .*, wanted uint64 \[n\]"):
        call(table, keys)


GRADIENTS = np.zeros((2, 4), np.float32)
BAD_UPDATES = {
    "a repeated resident key": (keys_of(1, 1), GRADIENTS, ones(2), "keys of key 1: got it twice"),
    "a repeated missing key": (keys_of(8, 8), GRADIENTS, ones(2), "keys of key 8: got it twice"),
    "a gradient without number": (
        keys_of(1, 2),
        np.float32([[0, 0, 0, 0], [0, 0, np.nan, 0]]),
        ones(2),
        "gradient of key 2: got nan",
    ),
    "a missing key's gradient without number": (keys_of(8), np.full((1, 4), np.nan, np.float32), ones(1), "key 8"),
    "an infinite gradient": (keys_of(1), np.full((1, 4), -np.inf, np.float32), ones(1), "gradient of key 1: got -inf"),
    "a gradient with an infinite square": (keys_of(1), np.full((1, 4), 1.1e17, np.float32), ones(1), "at most 1e17"),
    "a count of nothing": (keys_of(1, 2), GRADIENTS, np.uint32([1, 0]), "counts of key 2: got 0"),
    "gradients of another dim": (keys_of(1, 2), np.zeros((2, 5), np.float32), ones(2), r"wanted float32 \[2, 4\]"),
    "too few gradients": (keys_of(1, 2), GRADIENTS[:1], ones(2), "gradients: got"),
    "gradients as doubles": (keys_of(1, 2), GRADIENTS.astype(np.float64), ones(2), "gradients: got float64"),
    "gradients by columns": (keys_of(1, 2), np.asfortranarray(GRADIENTS), ones(2), "gradients: got"),
    "gradients that are one number often": (
        keys_of(1, 2),
        np.broadcast_to(np.float32(0), (2, 4)),
        ones(2),
        "gradients: got",
    ),
    "no gradients at all": (keys_of(1), np.zeros((0, 4), np.float32), ones(1), "gradients: got"),
    "too many counts": (keys_of(1, 2), GRADIENTS, ones(3), "counts: got"),
    "signed counts": (keys_of(1, 2), GRADIENTS, np.int32([1, 1]), "counts: got int32"),
}


@pytest.mark.parametrize("name", BAD_UPDATES)
def test_update_refuses_and_changes_nothing(name):
    keys, gradients, counts, message = BAD_UPDATES[name]
    table = make()
    table.admit(keys_of(1, 2), 1)
    table.drain_changes()
    before = table.scan_digest()
    with pytest.raises(InputError, match=message):
        table.update(keys, gradients, counts, 2)
    assert table.scan_digest() == before
    assert [len(c) for c in table.drain_changes()] == [0, 0]
    table.update(keys_of(1, 2), GRADIENTS, ones(2), 2)


@pytest.mark.parametrize("at_s", [-1, 2**32, 1.5])
def test_time_outside_uint32_seconds_is_refused(at_s):
    with pytest.raises(InputError, match="at_s, seconds since 1970: got"):
        make().admit(keys_of(1), at_s)


@pytest.mark.parametrize("at_s", [0, 2**32 - 1])
def test_first_and_last_second_are_times(at_s):
    table = make()
    table.admit(keys_of(1), at_s)
    assert table.statistics(keys_of(1))["last_seen_s"][0] == at_s


def test_rows_of_a_missing_key_are_refused():
    with pytest.raises(InputError, match="row of key 4: got none"):
        make().rows(keys_of(4))


def rows_with(name, value):
    table = make()
    table.admit(keys_of(1, 2), 1)
    rows = table.rows(keys_of(1, 2))
    rows[name][1] = value
    return rows


BAD_IMPORTS = {
    "weights without number": (lambda: rows_with("weights", np.nan), "row of key 2: got weights or state"),
    "an infinite accumulator": (lambda: rows_with("state", np.inf), "row of key 2: got weights or state"),
    "a negative accumulator": (lambda: rows_with("state", -1), "row of key 2: got a state its optimizer never has"),
    "importance without number": (lambda: rows_with("importance", np.nan), "importance nan"),
    "negative importance": (lambda: rows_with("importance", -1), "importance -1"),
    "unsettled above one": (lambda: rows_with("unsettled", 1.5), "unsettled 1.5"),
    "negative curvature": (lambda: rows_with("curvature", -0.5), "curvature -0.5"),
    "rows of another optimizer": (lambda: np.zeros(2, row_dtype(4, 4)), "rows: got"),
    "rows of another dim as bytes": (lambda: np.zeros((2, 32), np.uint8), r"rows: got uint8 \[2, 32\]"),
    "too few rows": (lambda: rows_with("weights", 0)[:1], "rows: got"),
    "no array": (lambda: b"bytes", "rows: got bytes"),
}


@pytest.mark.parametrize("name", BAD_IMPORTS)
def test_import_refuses_and_changes_nothing(name):
    rows, message = BAD_IMPORTS[name]
    table = make()
    with pytest.raises(InputError, match=message):
        table.import_rows(keys_of(1, 2), rows())
    assert len(table) == 0


@pytest.mark.parametrize("resident", [False, True])
def test_import_refuses_a_repeated_key(resident):
    table = make()
    table.admit(keys_of(1) if resident else NOTHING, 1)
    with pytest.raises(InputError, match="keys of key 1: got it twice"):
        table.import_rows(keys_of(1, 1), rows_with("weights", 0))
    assert len(table) == int(resident)
