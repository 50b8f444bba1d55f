"""Compaction: few files restore any version, each row is written few times, and nothing that is needed is lost."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DamagedError
from pipeline.telemetry.registry import REGISTRY
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.synthetic.commits import World, entries_of, project_in, rows_of, served_of
from tests.support.world.stored_paths import path_of

KEEP_ALL = {"all_s": 1e9}
FEW = {"newest": 1, "all_s": 60, "ten_minutes_s": 600, "daily_s": 1200}


@pytest.fixture
def store(tmp_path):
    opened = VersionStore(project_in(tmp_path, retention=KEEP_ALL))
    yield opened
    opened.close()


def counted(what):
    """Bytes that were written so far, as the metrics count them."""
    return REGISTRY.get_sample_value(f"springtide_{what}_bytes_total", {"shard": "0"}) or 0.0


def chain(store):
    return store.ledger.chain(store.current(0))


def assert_complete(store, world, ids):
    for id in ids:
        state = store.restore(id)
        assert (rows_of(state), served_of(state)) == world.expected[id]
        assert len(state.fields["user"].removed) == len(state.fields["user"].served_removed) == 0


def test_a_version_is_restored_from_few_files_after_many_commits(store):
    world = World(store)
    ids = []
    for _ in range(200):
        ids.append(world.commit())
        store.retain(0, world.at_ms)
        assert len(chain(store)) <= 24
    assert_complete(store, world, ids[::7])
    assert chain(store)[0].path.endswith(".merged")


def test_every_version_stays_complete_while_versions_are_merged_and_dropped(tmp_path):
    store = VersionStore(project_in(tmp_path, retention=FEW))
    world = World(store, step_ms=20_000)
    for _ in range(150):
        world.commit(removals=20)
        store.retain(0, world.at_ms)
    retained = [version.id for version in store.versions(0)]
    assert 3 <= len(retained) < 150
    assert_complete(store, world, retained)
    files = list(path_of(store.folder).glob("g*/*/*"))
    assert any(path.suffix == ".merged" for path in files)
    assert len(files) < 60
    store.close()


def test_a_row_is_written_few_times(store):
    """Rows of 60 keys that change again and again: what merges write in all is bounded by what commits write."""
    world = World(store)
    before = counted("committed"), counted("merged")
    for _ in range(400):
        world.commit()
        store.retain(0, world.at_ms)
    committed, merged = counted("committed") - before[0], counted("merged") - before[1]
    assert 0 < merged < 3 * committed < 3 * store.stored_bytes(0)


def test_keys_touched_between_versions_are_exact_after_merges(store):
    world = World(store)
    wanted, ids = [], []
    for _ in range(40):
        commit = world.build()
        store.commit(commit)
        store.retain(0, world.at_ms)
        ids.append(commit.id)
        wanted.append(set(commit.fields["user"].touched.tolist()))
    assert set(store.touched(ids[4], ids[-1])["user"].tolist()) == set().union(*wanted[5:])


def test_only_wanted_entries_are_read(store):
    world = World(store)
    for _ in range(30):
        id = world.commit()
        store.retain(0, world.at_ms)
    held = world.expected[id][1]
    wanted = np.array(sorted([*list(held)[:5], 10_000]), np.uint64)
    entries = store.served(id, {"user": wanted})["user"]
    found = entries_of(entries.keys, entries.handles, entries.bits, entries.payload)
    assert {key: found.get(key) for key in wanted.tolist()} == {key: held.get(key) for key in wanted.tolist()}
    assert store.served(id, {})["user"].keys.tolist() == []


def test_a_generation_after_a_rollback_merges_with_what_came_before(store):
    world = World(store)
    ids = [world.commit() for _ in range(12)]
    store.retain(0, world.at_ms)
    full = world.commit(full=True)
    for _ in range(12):
        last = world.commit()
    store.retain(0, world.at_ms)
    assert chain(store)[0].after is None
    assert_complete(store, world, [*ids, full, last])


def test_a_damaged_file_is_named_by_the_merge_that_reads_it(store):
    world = World(store)
    ids = [world.commit() for _ in range(8)]
    path = path_of(store.folder) / store.ledger.version(ids[3]).path
    content = bytearray(path.read_bytes())
    rows = rows_of(store.restore(ids[3]))
    content[content.index(next(row for row in rows.values() if row in content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=f"{path.name} is damaged: fields/user/rows: block at .* its checksum"):
        store.retain(0, world.at_ms)
    assert not list(path_of(store.folder).rglob("*.merged*"))


PROCESS = """
import sys
from pathlib import Path
from pipeline.process import crash_point
from pipeline.versions.store.version_store import VersionStore
from tests.support.synthetic.commits import World, project_in

store = VersionStore(project_in(Path(sys.argv[1]), retention={"all_s": 1e9}))
world = World(store)
for _ in range(8):
    world.commit()
crash_point.arm_crash_point("compaction.after_merge")
store.retain(0, world.at_ms)
"""


def test_a_merge_that_was_interrupted_is_repeated(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), str(tmp_path)]
    assert subprocess.run(command, cwd=Path(__file__).parents[3]).returncode == -9
    store = VersionStore(project_in(tmp_path, retention=KEEP_ALL))
    id = VersionId(0, 0, 1, 8)
    assert len(list(path_of(store.folder).rglob("*.merged"))) == 1
    assert len(store.ledger.chain(id)) == 8
    before = rows_of(store.restore(id))
    store.raise_epoch(0)
    store.retain(0, 10_000_000)
    assert [file.path.endswith(".merged") for file in store.ledger.chain(id)] == [True]
    assert rows_of(store.restore(id)) == before
    store.close()
