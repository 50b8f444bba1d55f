"""Cold rows: a table that swaps rows out and in, against one that never does, over random operations."""

import numpy as np
import pytest

from pipeline.configuration.model.fields import Adagrad
from pipeline.errors import InputError
from pipeline.trainer.tables.cold_table import ColdTable
from pipeline.trainer.tables.table import Table
from pipeline.versions.runs.sorted_run import LAST_KEY, RunArrays, encode_run

HALF_LIFE_S = 500.0
SPAN = 400
ANY = float("inf")
KEYS = np.arange(1, 1 + SPAN, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def make():
    return Table(4, Adagrad(kind="rowwise_adagrad"), 7, 0.5, HALF_LIFE_S)


class Pair:
    """A table with tiers and one without. `disk` is what a chain of versions would hold: rows as committed."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.tiered, self.resident, self.disk = make(), make(), {}
        self.at_s = 0
        self.open = None
        """(keys, rows) of both tables as of the begin of the open set."""

    def keys(self, share=0.1):
        return self.random.permutation(KEYS[self.random.random(SPAN) < share])

    def fetched(self, keys):
        return np.array([self.disk[int(key)] for key in keys], np.uint8).reshape(len(keys), self.tiered.row_bytes)

    def swap_in(self, keys):
        cold = keys[self.tiered.cold(keys)]
        assert self.tiered.swap_in(cold, self.fetched(cold)) == len(cold)

    def admit(self):
        keys = self.keys()
        self.swap_in(keys)
        assert self.tiered.admit(keys, self.at_s) == self.resident.admit(keys, self.at_s)

    def update(self):
        keys = self.keys()
        self.swap_in(keys)
        gradients = self.random.normal(size=(len(keys), 4)).astype(np.float32)
        counts = self.random.integers(1, 5, len(keys)).astype(np.uint32)
        for table in (self.tiered, self.resident):
            table.update(keys, gradients, counts, self.at_s)

    def remove(self):
        keys = self.keys(0.05)
        self.swap_in(keys)
        assert self.tiered.remove(keys) == self.resident.remove(keys)

    def swap_out(self):
        if self.open is not None:
            with pytest.raises(InputError, match="open set"):
                self.tiered.swap_out(ANY, SPAN, SPAN)
            return
        pinned = self.keys()
        stay = pinned[self.tiered.contains(pinned) & ~self.tiered.cold(pinned)]
        before, limit = self.tiered.cold_rows, int(self.random.integers(1, SPAN))
        swapped = self.tiered.swap_out(ANY, limit, int(self.random.integers(1, SPAN)), [pinned])
        assert self.tiered.cold_rows == before + swapped <= before + limit
        assert not self.tiered.cold(stay).any()

    def begin(self):
        if self.open is not None:
            return
        keys = self.resident.keys()
        self.open = keys, self.resident.rows(keys)
        for table in (self.tiered, self.resident):
            table.begin_changes()

    def settle(self):
        if self.open is None:
            return
        sets = []
        for table in (self.tiered, self.resident):
            while table.collect(int(self.random.integers(1, SPAN))):
                pass
            sets.append(table.release_collected().finish())
        self.check_before()
        tiered, resident = sets
        for name in ("touched", "rows", "removed"):
            np.testing.assert_array_equal(getattr(tiered, name), getattr(resident, name))
        assert (tiered.touched_sum, tiered.digest) == (resident.touched_sum, resident.digest)
        self.tiered.settle(tiered)
        self.resident.settle(resident)
        packed = tiered.rows.view(np.uint8).reshape(len(tiered.rows), self.tiered.row_bytes)
        self.disk |= {int(key): row for key, row in zip(tiered.touched, packed, strict=True)}
        for key in tiered.removed:
            self.disk.pop(int(key), None)  # created and removed in between
        self.open = None

    def check_before(self):
        keys, rows = self.open
        np.testing.assert_array_equal(np.sort(self.tiered.keys_before()), keys)
        out = np.empty(len(keys), self.tiered.row_dtype)
        cold = self.tiered.read_before(keys, out)
        out[cold] = self.fetched(keys[cold]).view(out.dtype).reshape(-1)
        np.testing.assert_array_equal(out, rows)

    def check(self):
        assert len(self.tiered) == len(self.resident) == self.tiered.resident_rows + self.tiered.cold_rows
        keys = self.resident.keys()
        np.testing.assert_array_equal(self.tiered.keys(), keys)
        for name in ("last_seen_s", "importance"):
            np.testing.assert_array_equal(self.tiered.statistics(keys)[name], self.resident.statistics(keys)[name])
        assert self.tiered.contains(KEYS).tolist() == self.resident.contains(KEYS).tolist()
        assert self.tiered.scan_digest() == self.resident.scan_digest()
        assert self.tiered.digest() == self.resident.digest()
        here = keys[~self.tiered.cold(keys)]
        np.testing.assert_array_equal(self.tiered.rows(here), self.resident.rows(here))


OPERATIONS = ("admit", "update", "update", "remove", "swap_out", "swap_out", "begin", "settle", "settle")


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_table_that_swaps_rows_equals_one_that_does_not(first):
    swapped = 0
    for seed in range(first, first + 20):
        pair = Pair(seed)
        for _ in range(60):
            pair.at_s += int(pair.random.integers(0, 20))
            getattr(pair, OPERATIONS[pair.random.integers(len(OPERATIONS))])()
            swapped += pair.tiered.cold_rows
            if pair.random.random() < 0.3:
                pair.check()
        pair.settle()
        pair.check()
    assert swapped > 0


def committed(rows=SPAN):
    table = make()
    table.admit(KEYS[:rows], 1)
    table.drain_changes()
    return table, table.rows(KEYS[:rows]).view(np.uint8).reshape(rows, -1)


def test_row_that_changed_since_the_last_commit_stays():
    table, _ = committed()
    table.update(KEYS[:5], np.ones((5, 4), np.float32), np.ones(5, np.uint32), 2)
    assert table.swap_out(ANY, SPAN, SPAN) == SPAN - 5
    assert not table.cold(KEYS[:5]).any()


def test_rows_of_least_frequency_go_first_and_then_those_seen_longest_ago():
    table, _ = committed(100)
    table.update(KEYS[:30], np.ones((30, 4), np.float32), np.full(30, 9, np.uint32), 2)
    table.update(KEYS[30:60], np.ones((30, 4), np.float32), np.full(30, 1, np.uint32), 2)
    table.drain_changes()
    worths = np.sort(table.sample_worths(100))
    assert table.swap_out(float(worths[39]), 100, 100) == 40
    assert table.cold(KEYS[60:100]).all()
    assert table.swap_out(float(worths[69]), 100, 100) == 30
    assert table.cold(KEYS[:100]).tolist() == [False] * 30 + [True] * 70


def test_memory_of_rows_swapped_out_is_used_again():
    table, rows = committed()
    before = table.memory_bytes
    for _ in range(10):
        assert table.swap_out(ANY, SPAN, SPAN) == SPAN
        assert table.swap_in(KEYS, rows) == SPAN
    assert table.memory_bytes - before == table.cold_bytes


def test_cold_key_takes_at_most_twenty_bytes():
    n = 300_000
    keys = np.random.default_rng(1).integers(0, 2**64, n, np.uint64)
    table = make()
    table.admit(keys, 1)
    table.drain_changes()
    assert table.swap_out(ANY, n, n) == n
    assert 16 * n < table.cold_bytes <= 20 * n + 16_384


def test_row_that_is_resident_already_is_skipped():
    table, rows = committed(3)
    table.swap_out(ANY, 3, 3, [KEYS[:1]])
    assert table.swap_in(KEYS[:3], rows) == 2
    assert table.cold_rows == 0


REFUSED = {
    "a key without a row": lambda t, rows: t.swap_in(KEYS[3:4], rows[:1]),
    "a repeated key": lambda t, rows: t.swap_in(KEYS[[0, 0]], rows[[0, 0]]),
    "another row": lambda t, rows: t.swap_in(KEYS[:1], changed(rows[:1])),
    "rows of another size": lambda t, rows: t.swap_in(KEYS[:1], rows[:1, :-4].copy()),
    "an update of a cold row": lambda t, rows: t.update(
        KEYS[:1], np.ones((1, 4), np.float32), np.ones(1, np.uint32), 2
    ),
    "an admission of a cold row": lambda t, rows: t.admit(KEYS[:1], 2),
    "a removal of a cold row": lambda t, rows: t.remove(KEYS[:1]),
    "the packed row of a cold row": lambda t, rows: t.rows(KEYS[:1]),
    "the row before of a cold row": lambda t, rows: t.rows_before(KEYS[:1]),
    "the weights of a cold row": lambda t, rows: t.lookup(KEYS[:1]),
    "an import of a cold row": lambda t, rows: t.import_rows(KEYS[:1], rows[:1]),
}


def changed(rows):
    rows = rows.copy()
    rows[:, -16] ^= 1  # last seen
    return rows


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_lose_a_cold_row_is_refused(name):
    table, rows = committed(3)
    table.swap_out(ANY, 3, 3)
    digest = table.scan_digest()
    with pytest.raises(InputError):
        REFUSED[name](table, rows)
    assert table.cold_rows == 3
    assert table.scan_digest() == table.digest() == digest
    assert table.swap_in(KEYS[:3], rows) == 3


class DiskRows:
    """The rows of one table in two runs, of which the older one has outdated values of every other row."""

    def __init__(self, keys, rows):
        self.keys, self.packed = keys, rows
        outdated = np.where(np.arange(len(keys))[:, None] % 2, rows, 0)
        self.runs = [run_of(keys, outdated), run_of(keys[::2].copy(), rows[::2])]

    def largest(self, table):
        return len(self.keys)

    def restore(self, table, take):
        middle = int(self.keys[len(self.keys) // 2])
        take(self.runs, 0, middle - 1)
        take(self.runs, middle, LAST_KEY)

    def reading(self, table):
        return lambda keys: self.rows(table, keys)

    def rows(self, table, keys):
        return self.packed[np.searchsorted(self.keys, keys)]


def run_of(keys, rows):
    return encode_run(RunArrays(keys, np.empty(0, np.uint64), (np.ascontiguousarray(rows, np.uint8),)))


def restored_from(whole, keys):
    disk = DiskRows(keys, whole.rows(keys).view(np.uint8).reshape(len(keys), -1))
    cold = ColdTable("item", make(), disk)
    cold.restore()
    return cold


def test_restored_table_has_every_row_on_disk_in_the_memory_of_its_keys():
    keys = np.sort(np.random.default_rng(1).integers(0, 2**64, 200_000, np.uint64))
    whole = make()
    whole.admit(keys, 1)
    whole.drain_changes()
    cold = restored_from(whole, keys)
    restored = cold.table
    assert (restored.cold_rows, restored.resident_rows) == (len(keys), 0)
    assert 16 * len(keys) < restored.cold_bytes <= 20 * len(keys)
    assert restored.digest() == restored.scan_digest() == whole.digest()
    assert (restored.keys() == keys).all()
    assert (restored.keys(7) == keys[:7]).all()
    assert len(restored.keys(0)) == 0
    assert (restored.statistics(keys)["last_seen_s"] == whole.statistics(keys)["last_seen_s"]).all()
    cold.swap_in(*cold.fetch(keys[::5].copy()))
    assert (restored.rows(keys[::5].copy()) == whole.rows(keys[::5].copy())).all()
    assert restored.digest() == restored.scan_digest() == whole.digest()
    assert cold.remove(keys[::3].copy()) == len(keys[::3])
    assert len(restored) == len(keys) - len(keys[::3])


def test_restored_row_that_no_table_has_is_refused_and_the_table_is_unchanged():
    whole, keys = make(), np.sort(KEYS)
    whole.admit(keys, 1)
    whole.drain_changes()
    rows = whole.rows(keys)
    twice = restored_from(whole, keys).table
    with pytest.raises(InputError, match=f"row of key {keys[0]}: got one already, wanted a key without a row"):
        twice.import_cold([run_of(keys, rows.view(np.uint8).reshape(SPAN, -1))], 0, LAST_KEY)
    assert (len(twice), twice.digest()) == (SPAN, whole.digest())
    rows["weights"][3, 0] = np.nan
    empty = make()
    with pytest.raises(InputError, match=f"row of key {keys[3]}: got weights or state that are not finite"):
        empty.import_cold([run_of(keys, rows.view(np.uint8).reshape(SPAN, -1))], 0, LAST_KEY)
    with pytest.raises(InputError, match=f"row of key {keys[0]}: got 5 bytes, wanted those of a row of this table"):
        empty.import_cold([run_of(keys[:1], np.zeros((1, 5)))], 0, LAST_KEY)
    assert (len(empty), empty.digest()) == (0, 0)
