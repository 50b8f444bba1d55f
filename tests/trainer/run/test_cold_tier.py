"""The cold tier: what is in memory never changes what is learned, committed or served."""

import copy
import signal
import threading
from contextlib import closing, contextmanager

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, DamagedError
from pipeline.logs.open import open_log
from pipeline.process.crash_point import arm_crash_point
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.forked import exit_code_of
from tests.support.shop.shop import (
    WRITTEN,
    append_samples,
    current_digest,
    make_project,
    make_samples,
    train,
    train_with_restarts,
)

ROWS = 4000
TINY = 30_000
"""Bytes for some 300 rows; a batch has about 130."""


def zipf_samples(rows, first=0, seed=1):
    """The shop's samples with thousands of users and items, of which a few are frequent."""
    random = np.random.default_rng([seed, first])
    samples = make_samples(seed, rows, first)
    for column, span in (("user", 3000), ("item", 1500)):
        values = pa.array([f"{column[0]}{n % span}" for n in random.zipf(1.2, rows)])
        samples = samples.set_column(samples.schema.get_field_index(column), column, values)
    return samples


def document(memory_bytes=None, expiry=None, **train_section):
    written = copy.deepcopy(WRITTEN)
    retention = {"all_s": 1e9}  # the versions that are kept depend on when maintenance runs
    written["train"] |= {"memory_bytes": memory_bytes, "retention": retention, **train_section}
    if expiry:
        for field in written["fields"]:
            field["expiry"] = expiry
    return written


def world(root, memory_bytes=None, expiry=None, **train_section):
    project = make_project(root, document(memory_bytes, expiry, **train_section))
    log = open_log(project)
    append_samples(log, project, zipf_samples(ROWS))
    return project, log


def history(project, log):
    """Of every version: digest, digest of what serving holds, and the bytes of its delta."""
    store = VersionStore(project)
    lineage = [(str(v.id), v.digest, v.served_digest) for v in store.lineage(0)]
    return lineage, [record.value for record in log.read("deltas", 0, 0)]


def trained(root, **settings):
    project, log = world(root, **settings)
    train(project, log)
    return history(project, log)


EXPIRIES = {
    "none": None,
    "ttl": {"ttl_s": 900, "sweep_every_s": 300},
    "budget": {"budget_bytes": 12_000, "sweep_every_s": 300},
}


@pytest.mark.parametrize("expiry", EXPIRIES)
@pytest.mark.parametrize("every", [1, 5])
def test_versions_and_deltas_are_the_same_with_any_budget(tmp_path, expiry, every):
    settings = {"expiry": EXPIRIES[expiry], "commit_every_batches": every}
    expected = trained(tmp_path / "resident", **settings)
    for memory_bytes in (TINY, 2 * TINY):
        assert trained(tmp_path / str(memory_bytes), memory_bytes=memory_bytes, **settings) == expected


@contextmanager
def learned_shard(project, log, stop_offset=None):
    """A shard that learned what is below `stop_offset`, open inside."""
    with closing(TrainerShard(project, log, VersionStore(project), 0)) as trainer:
        trainer.train(stop_offset or log.end_offset("samples", 0), threading.Event())
        yield trainer


def test_rows_beyond_the_budget_are_on_disk_only(tmp_path):
    project, log = world(tmp_path, TINY)
    with learned_shard(project, log) as trainer:
        tables = [each.table for each in trainer.tables.by_name.values()]
        counts = [each.counts() for each in trainer.tables.by_name.values()]
        assert sum(each.swapped_out for each in counts) > sum(each.cold_rows for each in counts) > 800
        assert sum(each.cold_reads for each in counts) > 100
        assert sum(each.prepare_misses for each in counts) == 0
        assert list(trainer.status()["cold_rows"].values()) == [each.cold_rows for each in counts]
        assert trainer.tables.cold.resident_bytes < 2 * TINY  # with what changed since the last commit
        for table in tables:
            assert table.digest() == table.scan_digest()


def test_fulls_and_incrementals_are_the_same_with_any_budget(tmp_path):
    """A full sends every row that was withheld, cold ones too."""
    published = {}
    for memory_bytes in (None, TINY):
        written = document(memory_bytes)
        written["publish"] = {"loss": 0.05, "incremental_every_s": 600, "full_every_s": 1200}
        project = make_project(tmp_path / str(memory_bytes), written)
        log = open_log(project)
        append_samples(log, project, zipf_samples(ROWS))
        train(project, log)
        files = (path for path in project.root.rglob("*.delta"))
        published[memory_bytes] = history(project, log), {path.name: path.read_bytes() for path in files}
    assert published[TINY] == published[None]
    assert any(name.startswith("full") for name in published[None][1])


def test_rollback_and_what_is_learned_after_it_are_the_same_with_any_budget(tmp_path):
    after = {}
    for memory_bytes in (None, TINY):
        project, log = world(tmp_path / str(memory_bytes), memory_bytes)
        train(project, log)
        target = VersionStore(project).lineage(0)[5].id
        roll_back(project, log, plan_rollback(project, log, to=target))
        append_samples(log, project, zipf_samples(ROWS // 2, first=ROWS))
        train(project, log)
        after[memory_bytes] = history(project, log)
    assert after[TINY] == after[None]


def test_migration_is_the_same_with_any_budget(tmp_path):
    """Tables that keep their rows keep those on disk too; the first version holds every row again."""
    after = {}
    for memory_bytes in (None, TINY):
        project, log = world(tmp_path / str(memory_bytes), memory_bytes)
        train(project, log)
        written = document(memory_bytes)
        written["fields"].pop()
        written["model"]["learning_rate"] = 0.01
        project = make_project(project.root, written)
        append_samples(log, project, zipf_samples(ROWS // 4, first=ROWS))
        train(project, log, migrate=True)
        after[memory_bytes] = history(project, log)
    assert after[TINY] == after[None]


def test_restart_keeps_to_the_budget(tmp_path):
    project, log = world(tmp_path, TINY)
    train(project, log)
    with closing(TrainerShard(project, log, VersionStore(project), 0)) as trainer:
        assert trainer.tables.cold.resident_bytes <= TINY
        tables = trainer.tables.by_name.values()
        assert sum(each.table.cold_rows for each in tables) > 800
        assert all(each.table.digest() == each.table.scan_digest() for each in tables)
        for each in tables:
            keys = each.table.keys()
            assert (each.statistics(keys)["count"] > 0).all()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The digest after one training with all rows in memory."""
    return train(*world(tmp_path_factory.mktemp("undisturbed")))


def test_restart_in_the_middle_changes_nothing(tmp_path, undisturbed):
    assert train_with_restarts(*world(tmp_path, TINY)) == undisturbed


def train_and_crash(root, point):
    arm_crash_point(point)
    project = make_project(root, document(TINY))
    train(project, open_log(project))


POINTS = [
    *(f"trainer.{point}:9" for point in ("before_commit", "after_commit", "after_delta", "after_publish")),
    "compaction.after_merge:1",
]


@pytest.mark.parametrize("point", POINTS)
def test_kill_at_any_point_changes_nothing(tmp_path, undisturbed, point):
    project, log = world(tmp_path, TINY)
    assert exit_code_of(train_and_crash, tmp_path, point) == -signal.SIGKILL
    assert train(project, log) == undisturbed


def test_budget_is_no_part_of_the_model(tmp_path, undisturbed):
    """Another budget, or none, continues the same versions."""
    project, log = world(tmp_path)
    end = log.end_offset("samples", 0)
    for stop_offset, memory_bytes in ((end // 3, TINY), (end // 2, None), (end, 2 * TINY)):
        with learned_shard(make_project(tmp_path, document(memory_bytes)), log, stop_offset):
            pass
    assert current_digest(VersionStore(project)) == undisturbed


def test_budget_smaller_than_a_batch_is_refused(tmp_path):
    project, log = world(tmp_path, 1000)
    with pytest.raises(ConfigError, match=r"train.memory_bytes is 1000, the rows of one batch take \d+. hint: "):
        train(project, log)


def digests_by_position(project, log):
    train(project, log)
    return {(v.offset, v.row): v.digest for v in VersionStore(project).lineage(0)}


def version_files(project):
    return sorted([*project.versions.rglob("*.version"), *project.versions.rglob("*.merged")])


def test_damaged_file_stops_training_and_never_gives_another_row(tmp_path):
    expected = digests_by_position(*world(tmp_path / "resident", commit_every_batches=1))
    project, log = world(tmp_path / "tiered", TINY)
    with learned_shard(project, log, log.end_offset("samples", 0) // 2) as trainer:
        paths = version_files(project)
        for path in paths:
            content = bytearray(path.read_bytes())
            for at in range(16, len(content), 64):
                content[at] ^= 1
            path.write_bytes(content)  # the same file, which the trainer has open
        with pytest.raises(DamagedError) as failure:
            trainer.train(log.end_offset("samples", 0), threading.Event())
    assert any(str(path) in str(failure.value) for path in paths)
    assert "its checksum does not match" in str(failure.value)
    assert "it holds rows of versions" in str(failure.value)
    for version in VersionStore(project).lineage(0):
        assert version.digest == expected[version.offset, version.row]


def test_damaged_file_stops_a_restart_and_is_named(tmp_path):
    project, log = world(tmp_path, TINY)
    train(project, log)
    append_samples(log, project, zipf_samples(ROWS // 4, first=ROWS))
    paths = version_files(project)
    for path in paths:
        content = bytearray(path.read_bytes())
        content[16:4000:64] = bytes(byte ^ 1 for byte in content[16:4000:64])  # rows come first in a file
        path.write_bytes(content)
    before = VersionStore(project).current(0)
    with pytest.raises(DamagedError) as failure:
        train(project, log)
    assert any(str(path) in str(failure.value) for path in paths)
    assert VersionStore(project).current(0) == before


def test_the_most_frequent_rows_come_back_after_a_restart_as_far_as_the_budget_allows(tmp_path):
    budget = 2 * TINY
    project, log = world(tmp_path, budget)
    with learned_shard(project, log):
        pass
    with closing(TrainerShard(project, log, VersionStore(project), 0)) as trainer:
        trainer.committer.drain()
        assert 0.5 * budget < trainer.tables.cold.resident_bytes <= budget
        for name in ("user", "item"):
            each = trainer.tables.by_name[name]
            keys = each.table.keys()
            cold, counts = each.table.cold(keys), each.statistics(keys)["count"]
            assert counts[~cold].mean() > 2 * counts[cold].mean()
