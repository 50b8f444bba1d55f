"""The reported memory of a table is the growth of the process; a budget is respected."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.configuration.model.fields import Adagrad
from pipeline.errors import InputError
from pipeline.trainer.tables.table import Table

# In a process of its own: nothing that others freed can hide what the table takes.
GROW = """
import json, sys
import numpy as np
from pathlib import Path
from pipeline.configuration.model.fields import Adagrad
from pipeline.trainer.tables.table import Table

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

rows, dim = int(sys.argv[1]), int(sys.argv[2])
keys = np.random.default_rng(1).integers(0, 2**64, rows, np.uint64)
warm = Table(dim, Adagrad(), 7, 0.01, 500.0)
warm.admit(keys[:1000], 1)
table, before = Table(dim, Adagrad(), 7, 0.01, 500.0), resident()
for part in np.array_split(keys, 100):
    table.admit(part, 1)
def measured():
    return {"reported": table.memory_bytes, "grew": resident() - before}

full = measured()
table.remove(keys[: rows // 2])
table.drain_changes()
print(json.dumps([full, measured()]))
"""


@pytest.mark.parametrize(("rows", "dim"), [(1_000_000, 16), (50_000, 16), (300_000, 100)])
def test_reported_memory_is_what_the_process_grew_by(rows, dim):
    done = subprocess.run([sys.executable, "-c", GROW, str(rows), str(dim)], capture_output=True, check=True)
    full, halved = json.loads(done.stdout)
    assert abs(full["reported"] - full["grew"]) <= 0.02 * full["reported"] + 512 * 1024
    # malloc retains memory of a settled set of changes, which belongs to no table.
    assert abs(halved["reported"] - halved["grew"]) <= 0.02 * full["reported"] + 4 * 2**20


def test_a_million_rows_take_no_more_than_they_are_good_for():
    table, keys = Table(16, Adagrad(), 7, 0.01, 500.0), np.arange(1_000_000, dtype=np.uint64)
    for part in np.array_split(keys, 50):
        table.admit(part, 1)
        if len(table) >= 200_000:  # at every size, not only at some
            assert table.memory_bytes / len(table) < 104 + 6 * 2**20 / len(table)


def test_budget_limits_rows_and_room_that_is_made_is_used():
    table = Table(16, Adagrad(), 7, 0.01, 500.0, budget_bytes=200_000)
    keys = np.arange(5_000, dtype=np.uint64)
    assert table.admit(keys, 1) == table.max_rows == len(table) == 200_000 // 103
    assert table.contains(keys).tolist() == [True] * len(table) + [False] * (5_000 - len(table))
    table.remove(keys[:10])
    assert table.admit(keys[::-1].copy(), 1) == 10
    assert table.memory_bytes < 220_000


@pytest.mark.parametrize(("name", "value"), [("budget_bytes", -1), ("budget_bytes", 1.5), ("threads", 0)])
def test_table_is_not_made_with(name, value):
    with pytest.raises(InputError, match=name):
        Table(4, Adagrad(), 7, 0.5, 500.0, **{name: value})


def test_any_number_of_threads_gives_the_same_table():
    def trained(threads):
        table, rng = Table(16, Adagrad(), 7, 0.5, 500.0, threads=threads), np.random.default_rng(1)
        keys = np.arange(20_000, dtype=np.uint64)
        table.admit(keys[:15_000], 1)
        for second in range(3):
            table.update(
                keys, rng.normal(size=(len(keys), 16)).astype(np.float32), np.ones(len(keys), np.uint32), second
            )
        table.drain_changes()
        return table.digest(), table.lookup(keys).tobytes(), table.contains(keys).sum()

    assert trained(1) == trained(2) == trained(5)
