"""Gather and learn over all fields at once, against the tables and pooling of one field after the other."""

from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.configuration.model.fields import Adagrad, Optimizer, Sgd
from pipeline.errors import InputError
from pipeline.features.plan import Features, FieldKeys
from pipeline.features.pooling import Pooling
from pipeline.trainer.batch.prefetch import FieldBatch, TableBatch, keys_by_table
from pipeline.trainer.batch.unique import Uniquer
from pipeline.trainer.tables.model_input import InputField, ModelInput
from pipeline.trainer.tables.table import Table
from pipeline.versions.deltas.rounding import RowRounding, as_read
from tests.support.reference.pooling import pooled, unpooled

DIMS, DENSE = (4, 16, 5, 4, 3), 2
POOLINGS = [Pooling("sum"), Pooling("mean"), Pooling("sqrtn"), Pooling("max"), Pooling("none", 4)]
WIDTHS = [pooling.width(dim) for pooling, dim in zip(POOLINGS, DIMS, strict=True)]
COLUMNS = sum(WIDTHS) + DENSE


OWN = tuple(InputField(f, pooling) for f, pooling in enumerate(POOLINGS))
"""Every field reads a table of its own."""


class FoundBatch(NamedTuple):
    """What `ModelInput.find` takes."""

    tables: list[TableBatch]
    fields: list[FieldBatch]


def tables() -> list[Table]:
    return [Table(dim, Adagrad(), seed=f, init_scale=0.1, half_life_s=100.0) for f, dim in enumerate(DIMS)]


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def found_of(features: list[FieldKeys], readers: dict[str, list[str]]) -> FoundBatch:
    keys = {str(f): each for f, each in enumerate(features)}
    found, fields = keys_by_table(Uniquer(), Features(keys, np.zeros((0, 0), np.float32)), readers)
    return FoundBatch(list(found.values()), [fields[str(f)] for f in range(len(features))])


def batch_of(random: np.random.Generator, samples: int) -> FoundBatch:
    """One key per sample in the first field, none to three in the others."""
    features = []
    for f in range(len(DIMS)):
        offsets = offsets_of(np.ones(samples, np.int64) if f == 0 else random.integers(0, 4, samples))
        features.append(FieldKeys(random.integers(0, 60, offsets[-1], np.uint64), offsets))
    return found_of(features, {str(f): [str(f)] for f in range(len(DIMS))})


def one_by_one(rows: list[Table], batch: FoundBatch, gradient: np.ndarray, at_s: int, out: np.ndarray) -> None:
    """What `ModelInput` has to come to."""
    columns = np.split(np.arange(sum(WIDTHS)), np.cumsum(WIDTHS)[:-1])
    for table, keys, field, pooling, each in zip(rows, *batch, POOLINGS, columns, strict=True):
        weights = table.lookup(keys.keys)
        out[:, each] = pooled(weights[field.inverse], field.offsets, pooling)
        sums = unpooled(gradient[:, each], weights, field.inverse, field.offsets, pooling)
        table.update(keys.keys, sums, keys.counts, at_s)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_all_fields_at_once_are_as_one_after_the_other(threads):
    random, ours, theirs = np.random.default_rng(1), tables(), tables()
    together = ModelInput(ours, OWN, DENSE, threads)
    for second in range(30):
        samples = int(random.integers(0, 20))
        batch = batch_of(random, samples)
        admitted = random.random() < 0.7
        missing = together.find(*batch)
        for f, (table, other) in enumerate(zip(ours, theirs, strict=True)):
            resident = table.contains(batch.tables[f].keys)
            np.testing.assert_array_equal(together.resident(f), resident)
            assert missing[f] == (~resident).sum()
            if admitted:
                other.admit(batch.tables[f].keys, second)
        if admitted:
            wanted_places = [np.flatnonzero(~together.resident(f)).tolist() for f in (2, 0, 1, 4, 3)]
            assert [places.tolist() for places in together.admit_missing((2, 0, 1, 4, 3), second)] == wanted_places
        got, wanted = np.full((2, 25, COLUMNS), 7, np.float32)
        gradient = random.normal(size=(samples, COLUMNS)).astype(np.float32)
        together.gather(got)
        together.learn(gradient, second)
        one_by_one(theirs, batch, gradient, second, wanted[:samples])
        np.testing.assert_array_equal(got, wanted)
        for table, other in zip(ours, theirs, strict=True):
            rows, others = table.rows(table.keys()), other.rows(other.keys())
            for name in set(rows.dtype.names) - {"curvature"}:  # which is not that of one sample
                np.testing.assert_array_equal(rows[name], others[name])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pooling", [Pooling("sum"), Pooling("mean"), Pooling("sqrtn"), Pooling("none", 4)])
def test_curvature_is_the_sum_of_the_squared_gradients_of_each_sample(pooling, weighted):
    if weighted and pooling.kind == "none":
        pytest.skip("a sequence has no weights")
    random, table, dim = (
        np.random.default_rng(3),
        Table(5, Sgd(kind="sgd"), seed=1, init_scale=0.1, half_life_s=100.0),
        5,
    )
    offsets = offsets_of(random.integers(0, 4, 30))
    keys = random.integers(0, 9, offsets[-1], np.uint64)
    weights = random.random(len(keys), np.float32) if weighted else np.empty(0, np.float32)
    batch = found_of([FieldKeys(keys, offsets, weights)], {"0": ["0"]})
    both = ModelInput([table], [InputField(0, pooling)], 0, 1)
    both.find(*batch)
    both.admit_missing([0], 1)
    width = pooling.width(dim)
    both.gather(np.zeros((30, width), np.float32))
    gradient = random.normal(0, 1, (30, width)).astype(np.float32)
    both.learn(gradient, 1)
    wanted = dict.fromkeys(keys.tolist(), 0.0)
    for i, (first, end) in enumerate(pairwise(offsets)):
        parts = weights[first:end] if weighted else np.ones(end - first, np.float32)
        norm = {"mean": parts.sum(), "sqrtn": np.sqrt((parts**2).sum())}.get(pooling.kind, 1)
        for e, j in enumerate(range(first, end)):
            each = gradient[i, e * dim : (e + 1) * dim] if pooling.kind == "none" else gradient[i] * parts[e] / norm
            wanted[int(keys[j])] += float((each**2).mean())
    found = table.statistics(np.array(list(wanted), np.uint64))["curvature"]
    np.testing.assert_allclose(found, list(wanted.values()), rtol=1e-5)


def test_curvature_of_a_maximum_is_shared_by_the_keys_of_a_sample():
    table = Table(4, Sgd(kind="sgd"), seed=1, init_scale=0.1, half_life_s=100.0)
    batch = found_of([keys_of([1, 2], [2])], {"0": ["0"]})
    both = ModelInput([table], [InputField(0, Pooling("max"))], 0, 1)
    both.find(*batch)
    both.admit_missing([0], 1)
    both.gather(np.zeros((2, 4), np.float32))
    both.learn(np.float32([[2, 2, 2, 2], [1, 1, 1, 1]]), 1)
    assert table.statistics(np.uint64([1, 2]))["curvature"].tolist() == [2, 3]


def test_a_batch_set_aside_learns_after_the_next_one_was_gathered():
    """As by an input of its own, which gathers it when it learns; also found anew, as after a restart."""
    random, ours, theirs = np.random.default_rng(5), tables(), tables()
    late, again = ModelInput(ours, OWN, DENSE, 2), ModelInput(theirs, OWN, DENSE, 2)
    batches = [batch_of(random, 9) for _ in range(20)]
    gradients = random.normal(size=(20, 9, COLUMNS)).astype(np.float32)
    expected, gathered, unused = np.zeros((3, 9, COLUMNS), np.float32)
    for second, (batch, gradient) in enumerate(zip(batches, gradients, strict=True)):
        for each, out in ((late, gathered), (again, expected)):
            each.find(*batch)
            each.admit_missing(range(5), second)
            each.gather(out)
        np.testing.assert_array_equal(gathered, expected)
        if second:
            late.learn_deferred(gradients[second - 1], second - 1)
            before = ModelInput(theirs, OWN, DENSE, 1)
            before.find(*batches[second - 1])
            if second % 2:
                before.gather(unused)
                before.learn(gradients[second - 1], second - 1)
            else:
                before.defer()
                before.learn_deferred(gradients[second - 1], second - 1)
        late.defer()
        with pytest.raises(InputError, match="got no batch"):
            again.learn_deferred(gradient, second)
    for table, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(table.rows(table.keys()), other.rows(other.keys()))


def test_a_batch_found_while_the_one_before_is_learned_gives_the_same_rows():
    random, early, late = np.random.default_rng(3), tables(), tables()
    ahead, in_turn = (ModelInput(rows, OWN, DENSE, 2) for rows in (early, late))
    batches = [batch_of(random, 9) for _ in range(20)]
    ours, theirs = np.zeros((2, 9, COLUMNS), np.float32)
    ahead.find(*batches[0])
    ahead.admit_missing(range(5), 0)
    for second, batch in enumerate(batches):
        gradient = random.normal(size=(9, COLUMNS)).astype(np.float32)
        ahead.gather(ours)
        if second + 1 < len(batches):
            ahead.find(*batches[second + 1])
            ahead.admit_missing(range(5), second + 1)
        ahead.learn(gradient, second)
        in_turn.find(*batch)
        in_turn.admit_missing(range(5), second)
        in_turn.gather(theirs)
        in_turn.learn(gradient, second)
        np.testing.assert_array_equal(ours, theirs)
    for table, other in zip(early, late, strict=True):
        np.testing.assert_array_equal(table.rows(table.keys()), other.rows(other.keys()))


def test_admitted_keys_get_rows_and_the_others_count_as_zeros():
    rows = tables()
    together = ModelInput(rows, OWN, DENSE, 1)
    keys, offsets = np.array([9, 4, 8], np.uint64), np.arange(4, dtype=np.int64)
    none = FieldKeys(np.empty(0, np.uint64), np.zeros(4, np.int64))
    assert together.find(*found_of([FieldKeys(keys, offsets), none, none, none, none], {f: [f] for f in "01234"})) == [
        3,
        0,
        0,
        0,
        0,
    ]
    together.admit(0, np.array([1]), 5)
    assert rows[0].keys().tolist() == [4]
    out = np.zeros((3, COLUMNS), np.float32)
    together.gather(out)
    assert out.any(axis=1).tolist() == [False, True, False]


def test_what_does_not_fit_is_refused_by_name():
    together = ModelInput(tables(), OWN, DENSE, 1)
    good = batch_of(np.random.default_rng(2), 6)
    [keys, *other_tables], [field, *other_fields] = good
    with pytest.raises(InputError, match="find: batch: got 4, wanted 5, one for each table"):
        together.find(other_tables, good.fields)
    with pytest.raises(InputError, match="find: batch: got 4, wanted 5, one for each field"):
        together.find(good.tables, other_fields)
    with pytest.raises(InputError, match=r"keys: got int64 \[.*\], wanted uint64 \[u\]"):
        together.find([TableBatch(keys.keys.astype(np.int64), keys.counts), *other_tables], good.fields)
    with pytest.raises(InputError, match="counts: got"):
        together.find([TableBatch(keys.keys, keys.counts[:-1]), *other_tables], good.fields)
    with pytest.raises(InputError, match="inverse: got"):
        together.find(good.tables, [FieldBatch(field.inverse + np.int32(99), field.offsets), *other_fields])
    with pytest.raises(InputError, match="fields differ in samples"):
        together.find(good.tables, [FieldBatch(field.inverse[:-1], field.offsets[:-1]), *other_fields])
    with pytest.raises(InputError, match=r"find\(\) and gather\(\) first"):
        together.gather(np.zeros((6, COLUMNS), np.float32))
    together.find(*good)
    with pytest.raises(InputError, match="places: got 99, wanted 0 to"):
        together.admit(0, np.array([99]), 1)
    for matrix in (np.zeros((5, COLUMNS), np.float32), np.zeros((6, COLUMNS + 1), np.float32)):
        with pytest.raises(InputError, match=r"out: got \[.*\], wanted \[6 or more, 47\]"):
            together.gather(matrix)
    together.gather(np.zeros((6, COLUMNS), np.float32))
    for matrix in (np.zeros((5, COLUMNS), np.float32), np.zeros((6, COLUMNS + 1), np.float32)):
        with pytest.raises(InputError, match=r"gradient: got \[.*\], wanted \[6 or more, 47\]"):
            together.learn(matrix, 1)
    with pytest.raises(InputError, match="out: got float64"):
        together.gather(np.zeros((6, COLUMNS)))


def test_a_gradient_that_is_not_a_number_is_refused():
    together = ModelInput(tables(), OWN, DENSE, 2)
    together.find(*batch_of(np.random.default_rng(2), 6))
    together.admit_missing([0], 1)
    together.gather(np.zeros((6, COLUMNS), np.float32))
    with pytest.raises(InputError, match=r"gradient of key .* got nan"):
        together.learn(np.full((6, COLUMNS), np.nan, np.float32), 1)


def keys_of(*lists: list[int]) -> FieldKeys:
    """The keys of each sample."""
    return FieldKeys(np.array([*chain(*lists)], np.uint64), offsets_of(np.array([len(each) for each in lists])))


SHARED = (InputField(0, Pooling("sum")), InputField(1, Pooling("mean")), InputField(0, Pooling("mean")))
"""The first and the last field read the first table, the field between them reads the second."""
READERS = {"a": ["0", "2"], "b": ["1"]}


def shared_input(optimizer: Optimizer, threads: int = 1) -> tuple[Table, Table, ModelInput]:
    a, b = (Table(dim, optimizer, seed=7, init_scale=0.1, half_life_s=100.0) for dim in (4, 16))
    return a, b, ModelInput([a, b], SHARED, DENSE, threads)


def weights_after(table: Table, keys: list[int], step: np.ndarray) -> np.ndarray:
    return table.lookup(np.array(keys, np.uint64)) - 0.05 * step


@pytest.mark.parametrize("threads", [1, 3])
def test_the_fields_of_a_table_update_a_row_once_by_the_sum_of_their_gradients(threads):
    a, _, together = shared_input(Sgd(kind="sgd"), threads)
    # Sample 0 has key 1 in both fields, key 2 is in the first field only, keys 3 and 4 are in the last one only.
    batch = found_of([keys_of([1], [2], []), keys_of([9], [], [9]), keys_of([1, 3], [], [4])], READERS)
    assert batch.tables[0].keys.tolist() == [1, 2, 3, 4]
    assert together.find(*batch) == [4, 1]
    together.admit_missing([0, 1], 5)
    inputs, gradient = np.zeros((3, 26), np.float32), np.arange(78, dtype=np.float32).reshape(3, 26)
    together.gather(inputs)
    row = dict(zip([1, 2, 3, 4], a.lookup(batch.tables[0].keys), strict=True))
    none = np.zeros(4, np.float32)
    np.testing.assert_array_equal(inputs[:, :4], [row[1], row[2], none])
    np.testing.assert_allclose(inputs[:, 20:24], [(row[1] + row[3]) / 2, none, row[4]], rtol=1e-6)
    first, last = gradient[:, :4], gradient[:, 20:24]
    wanted = weights_after(a, [1, 2, 3, 4], np.array([first[0] + last[0] / 2, first[1], last[0] / 2, last[2]]))
    together.learn(gradient, 5)
    np.testing.assert_allclose(a.lookup(batch.tables[0].keys), wanted, rtol=1e-6)
    assert a.statistics(batch.tables[0].keys)["count"].tolist() == [2, 1, 1, 1]


def test_an_optimizer_with_state_takes_one_step_for_a_row_that_two_fields_read():
    a, _, together = shared_input(Adagrad(kind="adagrad"))
    batch = found_of([keys_of([1]), keys_of([]), keys_of([1])], READERS)
    together.find(*batch)
    together.admit_missing([0], 5)
    together.gather(np.zeros((1, 26), np.float32))
    gradient = np.ones((1, 26), np.float32)
    gradient[:, 20:24] = 3
    together.learn(gradient, 5)
    np.testing.assert_allclose(a.rows(batch.tables[0].keys)["state"], np.full((1, 4), 0.1 + 4**2), rtol=1e-6)


def test_tables_and_fields_in_any_order_of_threads_give_the_same_rows():
    rows = []
    for threads in (1, 4):
        a, b, together = shared_input(Adagrad(), threads)
        random = np.random.default_rng(5)
        for second in range(20):
            lists = [offsets_of(random.integers(0, 4, 30)) for _ in SHARED]
            batch = found_of([FieldKeys(random.integers(0, 50, o[-1], np.uint64), o) for o in lists], READERS)
            together.find(*batch)
            together.admit_missing([0, 1], second)
            together.gather(np.zeros((30, 26), np.float32))
            together.learn(random.normal(size=(30, 26)).astype(np.float32), second)
        rows.append([each.rows(each.keys()).tobytes() for each in (a, b)])
    assert rows[0] == rows[1]


def test_a_field_of_a_table_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="table: got 5, wanted 0 to 5 - 1"):
        ModelInput(tables(), [InputField(5, Pooling("sum"))], DENSE, 1)


ROUNDINGS = [RowRounding(4), RowRounding("ternary"), None, RowRounding(1, below=0.05), RowRounding(2)]


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_read_rounded_and_the_gradient_goes_to_the_rows_themselves(threads):
    random, ours, theirs = np.random.default_rng(5), tables(), tables()
    together, plain = ModelInput(ours, OWN, DENSE, threads, ROUNDINGS), ModelInput(theirs, OWN, DENSE, 1)
    for second in range(20):
        batch = batch_of(random, 12)
        for each in (together, plain):
            each.find(*batch)
            each.admit_missing(range(5), second)
        read = [as_read(t.rows(b.keys), r) for t, b, r in zip(ours, batch.tables, ROUNDINGS, strict=True)]
        got, gradient = np.zeros((12, COLUMNS), np.float32), random.normal(size=(12, COLUMNS)).astype(np.float32)
        together.gather(got)
        starts = np.cumsum([0, *WIDTHS])
        for f, (weights, field, pooling) in enumerate(zip(read, batch.fields, POOLINGS, strict=True)):
            wanted = pooled(weights[field.inverse], field.offsets, pooling)
            np.testing.assert_array_equal(got[:, starts[f] : starts[f + 1]], wanted)
        together.learn(gradient, second)
        plain.gather(np.zeros((12, COLUMNS), np.float32))
        plain.learn(gradient, second)
    for f, (table, other) in enumerate(zip(ours, theirs, strict=True)):
        rows, others = table.rows(table.keys()), other.rows(other.keys())
        np.testing.assert_array_equal(rows["count"], others["count"])
        if POOLINGS[f].kind != "max":  # the gradient of a maximum depends on the rows
            np.testing.assert_array_equal(rows["weights"], others["weights"])
            np.testing.assert_array_equal(rows["state"], others["state"])


def test_importance_is_that_of_the_rows_as_read():
    [table, *_], random = tables(), np.random.default_rng(6)
    together = ModelInput([table], OWN[:1], 0, 1, [RowRounding(1)])
    batch = found_of([FieldKeys(np.arange(3, dtype=np.uint64), np.arange(4))], {"0": ["0"]})
    together.find(*batch)
    together.admit_missing([0], 1)
    read = as_read(table.rows(batch.tables[0].keys), RowRounding(1))
    gradient = random.normal(size=(3, 4)).astype(np.float32)
    together.gather(np.zeros((3, 4), np.float32))
    together.learn(gradient, 1)
    importance = table.statistics(batch.tables[0].keys)["importance"]
    np.testing.assert_allclose(importance, np.abs((gradient * read).sum(axis=1)), rtol=1e-5)


def test_a_rounding_is_given_for_every_table_or_for_none():
    with pytest.raises(InputError, match="roundings: got 1, wanted 5, one for each table"):
        ModelInput(tables(), OWN, DENSE, 1, [RowRounding(4)])
