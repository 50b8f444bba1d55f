"""Gather and learn over all fields at once, against the tables and pooling of one field after the other."""

import numpy as np
import pytest

from pipeline.configuration.fields import Adagrad
from pipeline.errors import InputError
from pipeline.trainer.batch.prefetch import FieldBatch
from pipeline.trainer.batch.unique import Uniquer
from pipeline.trainer.tables.model_input import ModelInput
from pipeline.trainer.tables.table import Table
from tests.support.pooling import pooled, unpooled

DIMS, MEAN, DENSE = (4, 16, 5), (False, True, False), 2
COLUMNS = sum(DIMS) + DENSE


def unique(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return Uniquer().unique(keys)


def tables() -> list[Table]:
    return [Table(dim, Adagrad(), seed=f, init_scale=0.1, half_life_s=100.0) for f, dim in enumerate(DIMS)]


def batch_of(random: np.random.Generator, samples: int) -> list[FieldBatch]:
    """One key per sample in the first field, none to three in the others."""
    fields = []
    for f in range(len(DIMS)):
        each = np.ones(samples, np.int64) if f == 0 else random.integers(0, 4, samples)
        offsets = np.concatenate([[0], np.cumsum(each)]).astype(np.int64)
        fields.append(FieldBatch(*unique(random.integers(0, 60, offsets[-1], np.uint64)), offsets=offsets))
    return fields


def one_by_one(rows: list[Table], batch: list[FieldBatch], gradient: np.ndarray, at_s: int, out: np.ndarray) -> None:
    """What `ModelInput` has to come to."""
    start = 0
    for table, field, mean in zip(rows, batch, MEAN, strict=True):
        out[:, start : start + table.dim] = pooled(table.lookup(field.keys)[field.inverse], field.offsets, mean)
        start += table.dim
    start = 0
    for table, field, mean in zip(rows, batch, MEAN, strict=True):
        columns = gradient[:, start : start + table.dim]
        sums = unpooled(columns, field.inverse, field.offsets, mean, len(field.keys))
        table.update(field.keys, sums, field.counts, at_s)
        start += table.dim


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_all_fields_at_once_are_as_one_after_the_other(threads):
    random, ours, theirs = np.random.default_rng(1), tables(), tables()
    together = ModelInput(ours, MEAN, DENSE, threads)
    for second in range(30):
        samples = int(random.integers(0, 20))
        batch = batch_of(random, samples)
        admitted = random.random() < 0.7
        missing = together.find(batch)
        for f, (table, other) in enumerate(zip(ours, theirs, strict=True)):
            resident = table.contains(batch[f].keys)
            np.testing.assert_array_equal(together.resident(f), resident)
            assert missing[f] == (~resident).sum()
            if admitted:
                other.admit(batch[f].keys, second)
        if admitted:
            wanted_places = [np.flatnonzero(~together.resident(f)).tolist() for f in (2, 0, 1)]
            assert [places.tolist() for places in together.admit_missing((2, 0, 1), second)] == wanted_places
        got, wanted = np.full((2, 25, COLUMNS), 7, np.float32)
        gradient = random.normal(size=(samples, COLUMNS)).astype(np.float32)
        together.gather(got)
        together.learn(gradient, second)
        one_by_one(theirs, batch, gradient, second, wanted[:samples])
        np.testing.assert_array_equal(got, wanted)
        for table, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(table.rows(table.keys()), other.rows(other.keys()))


def test_a_batch_found_while_the_one_before_is_learned_gives_the_same_rows():
    random, early, late = np.random.default_rng(3), tables(), tables()
    ahead, in_turn = (ModelInput(rows, MEAN, DENSE, 2) for rows in (early, late))
    batches = [batch_of(random, 9) for _ in range(20)]
    ours, theirs = np.zeros((2, 9, COLUMNS), np.float32)
    ahead.find(batches[0])
    ahead.admit_missing((0, 1, 2), 0)
    for second, batch in enumerate(batches):
        gradient = random.normal(size=(9, COLUMNS)).astype(np.float32)
        ahead.gather(ours)
        if second + 1 < len(batches):
            ahead.find(batches[second + 1])
            ahead.admit_missing((0, 1, 2), second + 1)
        ahead.learn(gradient, second)
        in_turn.find(batch)
        in_turn.admit_missing((0, 1, 2), second)
        in_turn.gather(theirs)
        in_turn.learn(gradient, second)
        np.testing.assert_array_equal(ours, theirs)
    for table, other in zip(early, late, strict=True):
        np.testing.assert_array_equal(table.rows(table.keys()), other.rows(other.keys()))


def test_admitted_keys_get_rows_and_the_others_count_as_zeros():
    rows = tables()
    together = ModelInput(rows, MEAN, DENSE, 1)
    keys, offsets = np.array([9, 4, 8], np.uint64), np.arange(4, dtype=np.int64)
    none = FieldBatch(*unique(np.empty(0, np.uint64)), offsets=np.zeros(4, np.int64))
    assert together.find([FieldBatch(*unique(keys), offsets=offsets), none, none]) == [3, 0, 0]
    together.admit(0, np.array([1]), 5)
    assert rows[0].keys().tolist() == [4]
    out = np.zeros((3, COLUMNS), np.float32)
    together.gather(out)
    assert out.any(axis=1).tolist() == [False, True, False]


def test_what_does_not_fit_is_refused_by_name():
    together = ModelInput(tables(), MEAN, DENSE, 1)
    good = batch_of(np.random.default_rng(2), 6)
    with pytest.raises(InputError, match="find: batch: got 2 fields, wanted 3"):
        together.find(good[:2])
    wrong = FieldBatch(good[0].keys.astype(np.int64), good[0].inverse, good[0].counts, good[0].offsets)
    with pytest.raises(InputError, match=r"keys: got int64 \[.*\], wanted uint64 \[u\]"):
        together.find([wrong, *good[1:]])
    short = FieldBatch(good[0].keys, good[0].inverse, good[0].counts[:-1], good[0].offsets)
    with pytest.raises(InputError, match="counts: got"):
        together.find([short, *good[1:]])
    outside = FieldBatch(good[0].keys, good[0].inverse + np.int32(99), good[0].counts, good[0].offsets)
    with pytest.raises(InputError, match="inverse: got"):
        together.find([outside, *good[1:]])
    with pytest.raises(InputError, match=r"find\(\) and gather\(\) first"):
        together.gather(np.zeros((6, COLUMNS), np.float32))
    together.find(good)
    with pytest.raises(InputError, match="places: got 99, wanted 0 to"):
        together.admit(0, np.array([99]), 1)
    for matrix in (np.zeros((5, COLUMNS), np.float32), np.zeros((6, COLUMNS + 1), np.float32)):
        with pytest.raises(InputError, match=r"out: got \[.*\], wanted \[6 or more, 27\]"):
            together.gather(matrix)
    together.gather(np.zeros((6, COLUMNS), np.float32))
    for matrix in (np.zeros((5, COLUMNS), np.float32), np.zeros((6, COLUMNS + 1), np.float32)):
        with pytest.raises(InputError, match=r"gradient: got \[.*\], wanted \[6 or more, 27\]"):
            together.learn(matrix, 1)
    with pytest.raises(InputError, match="out: got float64"):
        together.gather(np.zeros((6, COLUMNS)))


def test_a_gradient_that_is_not_a_number_is_refused():
    together = ModelInput(tables(), MEAN, DENSE, 2)
    together.find(batch_of(np.random.default_rng(2), 6))
    together.admit_missing([0], 1)
    together.gather(np.zeros((6, COLUMNS), np.float32))
    with pytest.raises(InputError, match=r"gradient of key .* got nan"):
        together.learn(np.full((6, COLUMNS), np.nan, np.float32), 1)
