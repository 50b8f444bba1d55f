"""The version store against a dict: commits are restored, damaged files named, fenced writers refused."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DamagedError, FencedError, LogError, VersionError
from pipeline.versions.state import TableChange, VersionId
from pipeline.versions.store.version_store import DRAFT_MIN_BYTES, VersionStore
from tests.support.synthetic.commits import World, entries_of, project_in, rows_of, served_of
from tests.support.world.stored_paths import path_of


@pytest.fixture
def store(tmp_path):
    opened = VersionStore(project_in(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def world(store):
    return World(store)


def file_of(store, id):
    return path_of(store.folder) / store.ledger.version(id).path


@pytest.mark.parametrize("full_every", [1, 3, 1000])
def test_every_version_restores_the_committed_state(store, world, full_every):
    ids = [world.commit(full=i % full_every == 0) for i in range(20)]
    for id in ids:
        rows, served = world.expected[id]
        state = store.restore(id)
        assert rows_of(state) == rows
        assert served_of(state) == served
        assert state.full
        assert not len(state.fields["user"].removed)


def test_restored_keys_are_sorted(store, world):
    for _ in range(5):
        id = world.commit()
    change = store.restore(id).fields["user"]
    assert (np.diff(change.keys.astype(np.int64)) > 0).all()
    assert (np.diff(change.served_keys.astype(np.int64)) > 0).all()


def test_everything_except_rows_is_restored_as_committed(store, world):
    world.commit()
    commit = world.build()
    store.commit(commit)
    state = store.restore(commit.id)
    for name in (
        "id", "parent", "epoch", "offset", "row", "log_id", "first_at_ms", "last_at_ms", "dense", "training_state",
        "validation", "quarantines_seen", "next_handles", "model_digest", "digest", "served_digest", "delta",
        "samples_seen", "price",
    ):  # fmt: skip
        assert getattr(state, name) == getattr(commit, name), name


@pytest.mark.parametrize("full_every", [3, 1000])
def test_wide_training_state_is_stored_as_changes_and_restored_complete(tmp_path, store, world, full_every):
    wanted = {}
    for i in range(8):
        commit = world.build(full=i % full_every == full_every - 1)
        store.commit(commit)
        wanted[commit.id] = commit.training_state
        if i == 4:  # a new process has no parent state
            store = world.store = VersionStore(project_in(tmp_path))
            world.epoch = store.raise_epoch(0)
    for id, state in wanted.items():
        assert store.restore(id).training_state == state
        assert store.outline(id).training_state == state
        assert not store.restore(id).training_state_changes
    changed = [store.manifest(id)["filter_changes"] for id in wanted]
    assert changed[1] == ["wide"]
    assert changed[0] == []


def test_served_view_is_read_without_rows(store, world):
    for i in range(6):
        id = world.commit(full=i == 2)
    entries = store.served(id)["user"]
    assert entries_of(entries.keys, entries.handles, entries.bits, entries.payload) == world.expected[id][1]


def test_the_delta_has_the_exact_bytes_committed(store, world):
    commit = world.build()
    store.commit(commit)
    assert store.delta(commit.id) == commit.delta


def test_an_outline_has_everything_except_rows(store, world):
    commit = world.build()
    store.commit(commit)
    outline = store.outline(commit.id)
    assert outline.dense == commit.dense
    assert len(outline.fields["user"].keys) == 0
    assert outline.fields["user"].rows.shape == (0, commit.fields["user"].rows.shape[1])


def test_a_new_process_continues_from_current(tmp_path, store, world):
    id = world.commit()
    other = VersionStore(project_in(tmp_path))
    assert other.current(0) == id
    assert other.next_id(0) == replace(id, sequence=id.sequence + 1)
    other.close()


def test_the_first_version_has_sequence_one_and_no_parent(store, world):
    assert store.current(0) is None
    assert world.commit() == VersionId(0, 0, 1, 1)
    assert store.ledger.version(VersionId(0, 0, 1, 1)).parent is None


def test_touched_keys_include_every_served_key_changed_since(store, world):
    first = world.commit(full=True)
    wanted: set[int] = set()
    for i in range(6):
        commit = world.build(full=i == 3)
        store.commit(commit)
        wanted |= set(commit.fields["user"].touched.tolist())
    assert set(store.touched(first, commit.id)["user"].tolist()) == wanted
    assert store.touched(commit.id, commit.id) == {}


def test_touched_keys_of_unrelated_versions_are_refused(store, world):
    first, second = world.commit(), world.commit()
    with pytest.raises(VersionError, match="does not descend from"):
        store.touched(second, first)


def test_the_error_names_an_unknown_version(store, world):
    world.commit()
    with pytest.raises(VersionError, match="g0/s0-of-1/9 does not exist"):
        store.restore(VersionId(0, 0, 1, 9))


def test_a_version_of_another_shard_count_does_not_exist(store, world):
    world.commit()
    with pytest.raises(VersionError, match="does not exist"):
        store.delta(VersionId(0, 0, 2, 1))


@pytest.mark.parametrize("where", ["magic", "header", "rows", "dense", "checksum"])
def test_the_error_names_the_file_with_a_flipped_byte(store, world, where):
    id = world.commit()
    path = file_of(store, id)
    content = bytearray(path.read_bytes())
    place = {"magic": 0, "header": 40, "checksum": len(content) - 1}.get(where)
    if place is None:
        change = store.restore(id)
        wanted = change.dense if where == "dense" else change.fields["user"].rows.tobytes()
        place = bytes(content).index(wanted) + 3
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=path.name):
        store.restore(id)
    with pytest.raises(DamagedError, match=path.name):
        store.check(id)


def test_every_byte_of_a_file_is_checked(store, world):
    id = world.commit(keys=2, removals=0)
    path = file_of(store, id)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises((DamagedError, VersionError), match=path.name):
            store.check(id)


def test_the_error_names_a_damaged_section(store, world):
    id = world.commit()
    path = file_of(store, id)
    content = bytearray(path.read_bytes())
    content[bytes(content).index(store.outline(id).dense)] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="section dense"):
        store.restore(id)


@pytest.mark.parametrize("left", [0, 10, 200, -1])
def test_the_error_names_a_truncated_file(store, world, left):
    id = world.commit()
    path = file_of(store, id)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DamagedError, match=path.name):
        store.restore(id)


def test_the_error_names_a_file_with_extra_bytes(store, world):
    id = world.commit()
    path = file_of(store, id)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DamagedError, match=path.name):
        store.restore(id)


def test_the_error_names_a_missing_file_of_the_chain(store, world):
    first, second = world.commit(), world.commit()
    path = file_of(store, first)
    path.unlink()
    with pytest.raises(DamagedError, match=rf"{path.name}, which version {second} needs, is missing"):
        store.restore(second)


def test_a_later_format_is_refused(store, world):
    path = file_of(store, world.commit())
    content = bytearray(path.read_bytes())
    content[12] += 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=rf"{path.name} begins with .* and format 8, wanted .* and format 7"):
        store.restore(VersionId(0, 0, 1, 1))


def test_golden_bytes_of_a_version_file(store):
    world = World(store, seed=7)
    commit = replace(world.build(keys=2, removals=0), delta=b"delta", digest="d", served_digest="s")
    store.commit(commit)
    content = file_of(store, commit.id).read_bytes()
    assert content[:16] == b"SPRINGTDvers" + (7).to_bytes(4, "little")
    assert content[16:].startswith(commit.dense + b"delta" + commit.training_state["user"])
    length = int.from_bytes(content[-20:-16], "little")
    header = content[-24 - length : -24]
    assert header.startswith(b'{"delta_bytes":5,"digest":"d","epoch":1,"fields":{"user":{"dim":4,"row_bytes":24}}')
    assert b'"price":{"per_byte":0.5}' in header


def test_a_writer_with_an_earlier_epoch_cannot_commit(tmp_path, store, world):
    world.commit()
    late = world.build()
    successor = World(store, seed=2)
    with pytest.raises(FencedError, match="comes from epoch 1, shard 0 is at epoch 2"):
        store.commit(late)
    assert store.current(0) == late.parent
    successor.restart()
    assert successor.commit() == late.id


def test_a_fenced_commit_leaves_no_file_and_keeps_the_successors(store, world):
    world.commit()
    late = world.build()
    staged = store.stage(late)
    successor = World(store, seed=2)
    successor.restart()
    id = successor.commit()
    with pytest.raises(FencedError):
        store.ledger.commit(staged)
    with pytest.raises(FencedError):
        store.commit(late)
    assert served_of(store.restore(id)) == successor.expected[id][1]


def test_a_commit_that_skips_current_is_fenced(store, world):
    world.commit()
    early = world.build()
    world.commit()
    with pytest.raises(FencedError, match="follows g0/s0-of-1/1, CURRENT is g0/s0-of-1/2"):
        store.commit(replace(early, id=replace(early.id, sequence=3)))


def test_the_shard_count_is_fixed(tmp_path, store, world):
    world.commit()
    with pytest.raises(LogError, match="topic ledger has 2 partitions, 3 are wanted"):
        VersionStore(project_in(tmp_path, shards=2))


@contextmanager
def disk_of(most_bytes):
    """Limit the size of files that this process writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_commit_that_does_not_fit_on_disk_leaves_no_file(store, world):
    id = world.commit()
    before = sorted(path_of(store.folder).rglob("*.*"))
    commit = world.build()
    with disk_of(200), pytest.raises(VersionError, match=r"000000000002\.1\.version cannot be written.*make room"):
        store.stage(commit)
    assert sorted(path_of(store.folder).rglob("*.*")) == before
    assert store.current(0) == id
    store.commit(commit)
    assert store.current(0) == commit.id


def with_long_rows(commit):
    """The commit with rows large enough for a draft, and the tables the draft begins with."""
    change, keys = commit.fields["user"], np.arange(1, 1_025, dtype=np.uint64)
    random = np.random.default_rng(commit.id.sequence)
    rows = random.integers(0, 256, (len(keys), DRAFT_MIN_BYTES // len(keys) + 1)).astype(np.uint8)
    longer = replace(commit, fields={"user": replace(change, keys=keys, rows=rows)})
    return longer, {"user": TableChange(keys, rows, change.removed)}


def test_a_drafted_version_equals_one_written_at_once(store, world):
    commit, tables = with_long_rows(world.build())
    with store.drafting(commit.id, commit.epoch, tables) as draft:
        assert draft is not None
        store.commit(commit, draft)
    store.check(commit.id)
    assert file_of(store, commit.id).stat().st_size == store.ledger.version(commit.id).size_bytes
    restored = store.restore(commit.id)
    assert (rows_of(restored), served_of(restored)) == (rows_of(commit), served_of(commit))
    assert store.delta(commit.id) == commit.delta
    assert store.manifest(commit.id)["samples_seen"] == commit.samples_seen


def test_few_rows_are_not_drafted(store, world):
    commit = world.build()
    change = commit.fields["user"]
    tables = {"user": TableChange(change.keys, change.rows, change.removed)}
    with store.drafting(commit.id, commit.epoch, tables) as draft:
        assert draft is None


def test_a_draft_without_a_commit_leaves_no_file(store, world):
    commit, tables = with_long_rows(world.build())
    before = sorted(path_of(store.folder).rglob("*.*"))
    with pytest.raises(KeyError), store.drafting(commit.id, commit.epoch, tables):
        raise KeyError("what is prepared beside it")
    assert sorted(path_of(store.folder).rglob("*.*")) == before
    store.commit(commit)
    assert store.current(0) == commit.id


def test_a_draft_that_does_not_fit_on_disk_leaves_no_file(store, world):
    commit, tables = with_long_rows(world.build())
    before = sorted(path_of(store.folder).rglob("*.*"))
    with (
        disk_of(1 << 20),
        pytest.raises(VersionError, match=r"cannot be written.*make room"),
        store.drafting(commit.id, commit.epoch, tables) as draft,
    ):
        store.commit(commit, draft)
    assert sorted(path_of(store.folder).rglob("*.*")) == before
    assert store.current(0) is None


PROCESS = """
import signal, sys
from pathlib import Path
from pipeline.process import crash_point
from pipeline.errors import FencedError
from pipeline.versions.store import version_store as module
from pipeline.versions.store.version_store import VersionStore
from tests.support.synthetic.commits import World, project_in

store = VersionStore(project_in(Path(sys.argv[1])))
world = World(store)
world.commit()
crash_point.arm_crash_point(sys.argv[2] or None)
if sys.argv[3] == "stop":
    commit = world.build()
    staged = store.stage(commit)
    assert store.ledger.epoch(0) == commit.epoch  # this check alone does not protect: the writer pauses after it
    signal.raise_signal(signal.SIGSTOP)
    try:
        store.ledger.commit(staged)
    except FencedError as fenced:
        print("fenced:", fenced)
        sys.exit(5)
else:
    world.commit()
"""


def run_process(tmp_path, point="", how=""):
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), str(tmp_path), point, how]
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)


def test_a_writer_paused_between_check_and_commit_is_fenced(tmp_path):
    process = run_process(tmp_path, how="stop")
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    store = VersionStore(project_in(tmp_path))
    successor = World(store, seed=5)
    successor.restart()
    id = successor.commit()
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 5
    assert "fenced: version g0/s0-of-1/2 comes from epoch 1, shard 0 is at epoch 3" in output
    assert store.current(0) == id
    assert rows_of(store.restore(id)) == successor.expected[id][0]
    store.close()


def test_after_a_crash_before_commit_the_next_writer_continues_from_current(tmp_path):
    process = run_process(tmp_path, point="trainer.before_commit")
    assert process.wait(60) == -signal.SIGKILL
    store = VersionStore(project_in(tmp_path))
    assert store.current(0) == VersionId(0, 0, 1, 1)
    assert len(list(path_of(store.folder).rglob("*.version"))) == 2
    world = World(store)
    world.restart()
    assert world.commit() == VersionId(0, 0, 1, 2)
    store.retain(0, world.at_ms)
    assert len(list(path_of(store.folder).rglob("*.version"))) == 2
    store.close()


SHORT_RETENTION = {"newest": 1, "all_s": 60, "ten_minutes_s": 3600}


def test_a_version_file_in_another_place_is_named(store, world):
    first, second, third = world.commit(full=True), world.commit(full=True), world.commit()
    paths = [path_of(store.folder) / store.ledger.version(id).path for id in (first, second, third)]
    paths[1].write_bytes(paths[0].read_bytes())
    wanted = rf"{paths[1].name} holds version {first} with checksum .*, the ledger has version {second} with"
    for read in (store.restore, store.served, store.outline, store.check, store.delta, store.manifest):
        with pytest.raises(DamagedError, match=wanted):
            read(second)
    with pytest.raises(DamagedError, match=wanted):
        store.restore(third)
    with pytest.raises(DamagedError, match=wanted):
        store.touched(first, second)


def test_a_version_of_the_same_id_from_another_folder_is_named(tmp_path, store, world):
    id = world.commit()
    other = VersionStore(project_in(tmp_path / "other"))
    foreign = World(other, seed=7).commit()
    assert foreign == id
    path = store.ledger.version(id).path
    (path_of(store.folder) / path).write_bytes((path_of(other.folder) / path).read_bytes())
    other.close()
    with pytest.raises(DamagedError, match=rf"holds version {id} with checksum .* the ledger has version {id} with"):
        store.restore(id)


def test_retention_reads_only_the_files_that_the_ledger_lists(tmp_path):
    store = VersionStore(project_in(tmp_path, retention=SHORT_RETENTION))
    world = World(store, step_ms=100_000)
    ids = [world.commit(full=i % 7 == 3) for i in range(20)]
    paths = [path_of(store.folder) / store.ledger.version(id).path for id in ids]
    paths[5].write_bytes(paths[4].read_bytes())
    with pytest.raises(DamagedError, match=f"{paths[5].name} holds version {ids[4]}"):
        store.retain(0, world.at_ms)
    store.close()


def test_a_file_of_touched_keys_in_another_place_is_named(tmp_path):
    store = VersionStore(project_in(tmp_path, retention=SHORT_RETENTION))
    world = World(store, step_ms=100_000)
    ids = [world.commit(full=i % 7 == 3) for i in range(20)]
    store.retain(0, world.at_ms)
    bridged = [v for v in store.versions(0) if v.touched_path]
    assert len(bridged) > 1, ids
    one, other = (path_of(store.folder) / v.touched_path for v in bridged[:2])
    other.write_bytes(one.read_bytes())
    with pytest.raises(DamagedError, match=f"{other.name} holds keys touched by dropped versions with checksum"):
        store.touched(store.versions(0)[0].id, ids[-1])
    store.close()
