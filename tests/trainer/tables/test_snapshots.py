"""Rows as of one batch boundary: a commit reads them unchanged, whatever training does afterwards."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.configuration.model.fields import Adagrad
from pipeline.errors import InputError
from pipeline.trainer.tables.boundary import Boundary
from pipeline.trainer.tables.snapshots import OpenChanges, TableSnapshot
from pipeline.trainer.tables.table import Table

DIM = 3


def make() -> Table:
    return Table(DIM, Adagrad(kind="rowwise_adagrad"), seed=5, init_scale=0.1, half_life_s=100.0)


def change(table: Table, random: np.random.Generator, at_s: int) -> None:
    """Admit, update and remove a few keys, as a batch may."""
    keys = np.unique(random.integers(0, 200, 30, np.uint64))
    table.admit(keys, at_s)
    counts = np.ones(len(keys), np.uint32)
    table.update(keys, random.normal(size=(len(keys), DIM)).astype(np.float32), counts, at_s)
    if random.random() < 0.5:
        table.remove(random.choice(keys, 3, replace=False))
    if random.random() < 0.1:
        some = table.keys()[:4]
        table.import_rows(some, table.rows(some[::-1].copy()))


@pytest.mark.parametrize("seed", range(40))
def test_rows_are_those_of_the_boundary_whatever_happens_after_it(seed):
    """A set that is collected a little at a time between batches, against a copy made at once."""
    random, table = np.random.default_rng(seed), make()
    committed: set[int] = set()
    for commit in range(6):
        for batch in range(3):
            change(table, random, commit * 10 + batch)
        keys = table.keys()
        rows, digest = table.rows(keys), table.scan_digest()
        table.begin_changes()
        for batch in range(5):
            change(table, random, commit * 10 + 5 + batch)
            table.collect(int(random.integers(1, 40)))
            assert np.sort(table.keys_before()).tolist() == keys.tolist()
            np.testing.assert_array_equal(table.rows_before(keys), rows)
        while table.collect(7):
            pass
        changes = table.release_collected().finish()
        assert changes.digest == digest
        held = dict(zip(keys.tolist(), rows, strict=True))
        assert all(held[key] == row for key, row in zip(changes.touched.tolist(), changes.rows, strict=True))
        assert not set(changes.removed.tolist()) & set(keys.tolist())
        assert (committed | set(changes.touched.tolist())) - set(changes.removed.tolist()) == set(keys.tolist())
        committed = set(keys.tolist())
        table.settle(changes)
    table.drain_changes()
    assert table.digest() == table.scan_digest()


def test_a_key_without_a_row_at_the_boundary_has_none_afterwards_either():
    table, keys = make(), np.array([7], np.uint64)
    table.begin_changes()
    table.admit(keys, 1)
    with pytest.raises(InputError, match="row of key 7: got none at that time, wanted a key that had a row"):
        table.rows_before(keys)
    assert table.keys_before().tolist() == []


def test_without_an_open_set_before_means_now():
    table, keys = make(), np.array([7], np.uint64)
    table.admit(keys, 1)
    assert table.keys_before().tolist() == [7]
    np.testing.assert_array_equal(table.rows_before(keys), table.rows(keys))


def test_one_set_at_a_time():
    table = make()
    table.begin_changes()
    with pytest.raises(InputError, match="changes: got a second set, wanted one at a time"):
        table.begin_changes()


def test_a_commit_reads_only_at_boundaries_and_gets_complete_tables_there():
    """A thread reads while the training thread changes the tables and serves between two changes."""
    random, boundary = np.random.default_rng(3), Boundary()
    tables = {name: make() for name in ("user", "item")}
    snapshots = {name: TableSnapshot(table, boundary.calls) for name, table in tables.items()}
    for table in tables.values():
        change(table, random, 1)
    wanted = {name: (table.keys(), table.rows(table.keys()), table.scan_digest()) for name, table in tables.items()}
    training = threading.get_ident()
    served_by = set()

    def commit():
        changes = open_changes.collect()
        boundary.calls.run(lambda: served_by.add(threading.get_ident()))
        keys = {name: rows.keys() for name, rows in snapshots.items()}
        read = {name: rows.rows(keys[name]) for name, rows in snapshots.items()}
        open_changes.settle(changes)
        return changes, keys, read

    open_changes = OpenChanges(tables, boundary.calls)
    with ThreadPoolExecutor(1) as worker:
        work = worker.submit(commit)
        for batch in range(20):
            for table in tables.values():
                change(table, random, 2 + batch)
            boundary.serve()
        boundary.serve_until(work)
    changes, keys, read = work.result()
    assert served_by == {training}
    for name, (all_keys, rows, digest) in wanted.items():
        assert changes[name].digest == digest
        np.testing.assert_array_equal(keys[name], all_keys)
        np.testing.assert_array_equal(read[name], rows)


def test_an_error_of_a_call_is_raised_to_its_caller():
    boundary = Boundary()
    with ThreadPoolExecutor(1) as worker:
        work = worker.submit(boundary.calls.run, lambda: 1 // 0)
        boundary.serve_until(work)
    with pytest.raises(ZeroDivisionError):
        work.result()
