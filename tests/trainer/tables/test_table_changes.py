"""Change sets: a commit writes the table as of the begin of the set, whatever training changes meanwhile."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.configuration.model.fields import Adagrad
from pipeline.errors import InputError
from pipeline.trainer.tables.table import Table

KEYS = np.arange(1_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def make():
    return Table(4, Adagrad(), 7, 0.5, 500.0)


def learn(table, keys, at_s):
    table.update(keys, np.full((len(keys), 4), 0.5, np.float32), np.ones(len(keys), np.uint32), at_s)


def finished(table, rows_at_once=100):
    while table.collect(rows_at_once):
        pass
    return table.release_collected().finish()


def test_set_holds_the_rows_as_of_its_begin():
    table = make()
    table.admit(KEYS, 1)
    expected = table.rows(np.sort(KEYS))
    table.begin_changes()
    digest = table.scan_digest()
    left = table.collect(10)
    assert left == len(KEYS) - 10
    learn(table, KEYS[::3].copy(), 2)
    table.remove(KEYS[:500])
    table.admit(np.arange(9_000, 9_400, dtype=np.uint64), 3)
    changes = finished(table)
    np.testing.assert_array_equal(changes.touched, np.sort(KEYS))
    np.testing.assert_array_equal(changes.rows, expected)
    assert (changes.removed.tolist(), changes.digest) == ([], digest)
    table.settle(changes)
    assert table.digest() == digest


def test_next_set_holds_what_changed_while_the_one_before_was_open():
    table = make()
    table.admit(KEYS, 1)
    table.begin_changes()
    learn(table, KEYS[:5], 2)
    table.remove(KEYS[5:7])
    table.settle(finished(table))
    table.begin_changes()
    changes = finished(table)
    assert changes.touched.tolist() == sorted(KEYS[:5].tolist())
    assert changes.removed.tolist() == sorted(KEYS[5:7].tolist())
    table.settle(changes)
    assert table.digest() == table.scan_digest() == changes.digest


def test_set_is_finished_in_another_thread_while_training_continues():
    table = make()
    table.admit(KEYS, 1)
    table.begin_changes()
    table.collect(len(KEYS))
    with ThreadPoolExecutor(1) as background:
        finishing = background.submit(table.release_collected().finish)
        for second in range(2, 40):
            learn(table, KEYS, second)
        table.settle(finishing.result())
    table.drain_changes()
    assert table.digest() == table.scan_digest()


def test_row_imported_while_a_set_is_open_counts_at_once():
    table, other = make(), make()
    table.admit(KEYS, 1)
    other.admit(KEYS[:3], 9)
    table.begin_changes()
    table.import_rows(KEYS[:3], other.rows(KEYS[:3]))
    changes = finished(table)
    assert changes.rows["last_seen_s"].max() == 1
    table.settle(changes)
    assert table.digest() == table.scan_digest() != changes.digest


def test_memory_of_a_set_is_the_tables_until_it_is_taken():
    table = make()
    table.admit(KEYS, 1)
    before = table.memory_bytes
    table.begin_changes()
    table.collect(500)
    assert table.memory_bytes - before == 500 * (8 + table.row_bytes)
    table.collect(500)
    table.release_collected()
    assert table.memory_bytes == before


TOO_EARLY = {
    "a second set": (lambda t: t.begin_changes(), lambda t: t.begin_changes(), "one at a time"),
    "all at once with an open set": (lambda t: t.begin_changes(), lambda t: t.drain_changes(), "one at a time"),
    "a set that was not begun": (lambda t: None, lambda t: t.release_collected(), "collect"),
    "a set in part": (lambda t: (t.begin_changes(), t.collect(1)), lambda t: t.release_collected(), "collect"),
    "no rows": (lambda t: t.begin_changes(), lambda t: t.collect(0), "max_rows: got 0"),
    "fewer than no rows": (lambda t: t.begin_changes(), lambda t: t.collect(-1), "max_rows: got -1"),
}


@pytest.mark.parametrize("name", TOO_EARLY)
def test_too_early_is_refused(name):
    first, then, message = TOO_EARLY[name]
    table = make()
    table.admit(KEYS, 1)
    first(table)
    with pytest.raises(InputError, match=message):
        then(table)
    if table.collect(len(KEYS)) == 0 and "not begun" not in name:
        assert len(table.release_collected().finish().touched) == len(KEYS)


def test_set_is_settled_once():
    table = make()
    table.admit(KEYS, 1)
    table.begin_changes()
    changes = finished(table)
    table.settle(changes)
    with pytest.raises(InputError, match="release_collected"):
        table.settle(changes)
    assert table.digest() == table.scan_digest()
