"""Rollback: training and serving return to the target byte for byte, after any history and any crash."""

import signal
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import DamagedError, FencedError, InputError, RollbackError
from pipeline.logs.events.sample_block import SampleBlock, encode_sample_block, sample_schema
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.open import open_log
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.rollback.act import finish_rollbacks, roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.served_shard import DeltaStatus, ServedShard
from pipeline.versions.deltas.delta import decode_delta, delta_name
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.synthetic.commits import DIM, MODEL, World, entries_of, project_in, rows_of, served_of
from tests.support.world.stored_paths import path_of


class Scene:
    """A project whose trainers commit random versions and publish their deltas."""

    def __init__(self, root, shards=1, **train):
        self.project = project_in(root, shards, **train)
        self.log = open_log(self.project)
        self.store = VersionStore(self.project)
        self.worlds = [World(self.store, shard, shards) for shard in range(shards)]
        self.delta_writers = [DeltaWriter(self.project, self.log, shard) for shard in range(shards)]

    def commit(self, times=1, full_every=1000, publish=True, shard=0):
        ids = []
        for i in range(times):
            id = self.worlds[shard].commit(full=i % full_every == full_every - 1)
            if publish:
                self.publish(id)
            ids.append(id)
        return ids

    def publish(self, id):
        encoded = self.store.delta(id)
        self.delta_writers[id.shard].append(decode_delta(encoded), encoded)

    def restart(self, shard=0):
        """A new trainer takes over the shard and continues from CURRENT."""
        self.worlds[shard].restart()
        self.delta_writers[shard] = DeltaWriter(self.project, self.log, shard)

    def time_of(self, id):
        return self.store.ledger.version(id).last_at_ms

    def roll_back(self, **how):
        return roll_back(self.project, self.log, plan_rollback(self.project, self.log, **how))

    def deltas(self, shard=0):
        records = self.log.read(self.project.config.topics.deltas, shard, 0, ReadLimits(records=10_000))
        return [record.value for record in records]

    def close(self):
        self.store.close()
        self.log.close()


@pytest.fixture
def scene(tmp_path):
    made = Scene(tmp_path)
    yield made
    made.close()


def apply(served, encoded):
    delta, name = decode_delta(encoded), delta_name(encoded)
    if served.check(delta, name) is DeltaStatus.APPLICABLE:
        served.switch(served.stage(delta, name), lambda dense: None)


def follow(scene, shard=0, upto=None):
    served = ServedShard(shard, scene.project.config.logs.shards, {"user": DIM}, MODEL["digest"])
    for encoded in scene.deltas(shard)[:upto]:
        apply(served, encoded)
    return served


def shown(served):
    view = served.views["user"]
    keys = view.keys()
    return entries_of(keys, *view.export(keys))


@pytest.mark.parametrize("full_every", [1, 4, 1000])
def test_serving_and_training_equal_the_target(scene, full_every):
    ids = scene.commit(12, full_every)
    target = ids[6]
    scene.roll_back(before_ms=scene.time_of(ids[7]))
    served, current = follow(scene), scene.store.current(0)
    rows, entries = scene.worlds[0].expected[target]
    assert shown(served) == entries
    assert served.scan_digest() == scene.store.ledger.version(target).served_digest
    assert current == VersionId(1, 0, 1, target.sequence + 1)
    assert rows_of(scene.store.restore(current)) == rows
    assert served_of(scene.store.restore(current)) == entries
    assert scene.store.ledger.version(current).digest == scene.store.ledger.version(target).digest
    position = scene.store.outline(current)
    assert (position.offset, position.row) == (target.sequence * 10, 7)


def test_a_replica_at_any_version_after_the_target_reaches_it_with_one_delta(scene):
    ids = scene.commit(9)
    scene.roll_back(to=ids[3])
    reverse = scene.deltas()[-1]
    for seen in range(4, 10):
        served = follow(scene, upto=seen)
        apply(served, reverse)
        assert shown(served) == scene.worlds[0].expected[ids[3]][1]
        assert (served.generation, served.sequence) == (1, ids[3].sequence + 1)


def test_a_replica_before_the_target_does_not_apply_the_reverse_delta(scene):
    ids = scene.commit(9)
    scene.roll_back(to=ids[3])
    served = follow(scene, upto=3)
    reverse = scene.deltas()[-1]
    assert served.check(decode_delta(reverse), delta_name(reverse)) is DeltaStatus.GAP


def test_training_continues_from_the_target_in_the_new_generation(scene):
    ids = scene.commit(6)
    scene.roll_back(to=ids[2])
    scene.restart()
    later = scene.commit(5, full_every=3)
    assert later[0] == VersionId(1, 0, 1, ids[2].sequence + 2)
    assert shown(follow(scene)) == scene.worlds[0].expected[later[-1]][1]
    assert rows_of(scene.store.restore(later[-1])) == scene.worlds[0].expected[later[-1]][0]


def test_no_handle_is_assigned_twice(scene):
    ids = scene.commit(8)
    undone = scene.store.outline(ids[-1]).next_handles["user"]
    assert undone > scene.store.outline(ids[2]).next_handles["user"]
    scene.roll_back(to=ids[2])
    assert scene.store.outline(scene.store.current(0)).next_handles["user"] == undone


def test_the_old_trainer_is_fenced_from_versions_and_deltas(scene):
    ids = scene.commit(5)
    late = scene.worlds[0].build()
    scene.roll_back(to=ids[1])
    with pytest.raises(FencedError, match="hint"):
        scene.store.commit(late)
    with pytest.raises(FencedError):
        scene.delta_writers[0].append(decode_delta(late.delta), late.delta)


def test_a_version_committed_but_not_published_is_undone_too(scene):
    ids = scene.commit(5)
    scene.commit(1, publish=False)
    scene.roll_back(to=ids[2])
    assert shown(follow(scene)) == scene.worlds[0].expected[ids[2]][1]


def test_a_second_rollback_may_have_an_earlier_target(scene):
    ids = scene.commit(6)
    scene.roll_back(to=ids[4])
    scene.restart()
    scene.commit(4)
    before = scene.worlds[0].expected
    scene.roll_back(to=ids[1])
    assert shown(follow(scene)) == before[ids[1]][1]
    assert scene.store.current(0) == VersionId(2, 0, 1, ids[1].sequence + 1)
    scene.restart()
    assert scene.commit()[0].generation == 2


def test_a_rollback_may_go_to_a_version_of_the_new_generation(scene):
    ids = scene.commit(6)
    scene.roll_back(to=ids[2])
    scene.restart()
    later = scene.commit(4)
    scene.roll_back(to=later[1])
    assert shown(follow(scene)) == scene.worlds[0].expected[later[1]][1]


def test_an_undone_version_is_refused_as_a_target(scene):
    ids = scene.commit(6)
    scene.roll_back(to=ids[2])
    with pytest.raises(RollbackError, match=f"version {ids[4]} was undone"):
        plan_rollback(scene.project, scene.log, to=ids[4])


def test_the_target_is_the_latest_version_before_the_time(scene):
    ids = scene.commit(6)
    at_ms = scene.time_of(ids[3])
    for before_ms, target in ((at_ms, ids[2]), (at_ms + 1, ids[3])):
        assert plan_rollback(scene.project, scene.log, before_ms=before_ms).shards[0].target == target


def test_a_version_that_learned_from_a_later_sample_is_skipped(scene):
    ids = scene.commit(3)
    scene.worlds[0].at_ms += 100_000
    jumped = scene.commit()[0]
    scene.worlds[0].at_ms -= 100_000
    scene.commit(3)
    plan = plan_rollback(scene.project, scene.log, before_ms=scene.time_of(jumped))
    assert plan.shards[0].target == ids[2]


def test_a_plan_changes_nothing_and_counts_what_is_undone(scene):
    ids = scene.commit(6)
    deltas, before = scene.deltas(), scene.store.current(0)
    plan = plan_rollback(scene.project, scene.log, before_ms=scene.time_of(ids[2]))
    shard = plan.shards[0]
    assert (shard.versions, shard.samples, plan.generation) == (4, 400, 1)
    assert shard.rows_touched == sum(scene.store.ledger.version(id).rows_touched for id in ids[2:])
    assert plan.describe()["shards"][0]["target"] == str(ids[1])
    assert (scene.deltas(), scene.store.current(0), scene.store.ledger.generation()) == (deltas, before, 0)


def test_a_time_before_every_version_is_refused_with_the_earliest(scene):
    ids = scene.commit(3)
    with pytest.raises(RollbackError, match=f"its earliest is {ids[0]}"):
        plan_rollback(scene.project, scene.log, before_ms=scene.time_of(ids[0]))


def test_nothing_to_undo_is_refused(scene):
    with pytest.raises(RollbackError, match="no version yet"):
        plan_rollback(scene.project, scene.log, before_ms=1)
    ids = scene.commit(3)
    with pytest.raises(RollbackError, match="nothing was learned at or after"):
        plan_rollback(scene.project, scene.log, before_ms=scene.time_of(ids[-1]) + 1)


def test_a_time_and_a_version_together_are_refused(scene):
    ids = scene.commit(3)
    for how in ({}, {"before_ms": 1, "to": ids[0]}):
        with pytest.raises(RollbackError, match="not both"):
            plan_rollback(scene.project, scene.log, **how)


def test_the_undone_time_is_quarantined_by_default(scene):
    ids = scene.commit(6)
    from_ms, latest_ms = scene.time_of(ids[2]), scene.time_of(ids[-1])
    scene.roll_back(before_ms=from_ms)
    quarantines = scene.store.ledger.quarantines.active(0)
    times = pa.array([from_ms - 1, from_ms, latest_ms, latest_ms + 1]).to_numpy()
    assert quarantines.mask(times, 0).tolist() == [False, True, True, False]


def test_samples_not_trained_yet_are_quarantined_too(scene):
    ids = scene.commit(4)
    schema = sample_schema(scene.project.config)
    row = {name: None for name in schema.names}
    waiting_ms = scene.time_of(ids[-1]) + 5_000
    batch = pa.RecordBatch.from_pylist([{**row, "impression_at": 5, "click_at": waiting_ms}], schema)
    scene.log.create_topic("samples", 1)
    for _ in range(50):
        scene.log.append("samples", 0, [encode_sample_block(SampleBlock(0, batch, {}, {}, 0))])
    plan = plan_rollback(scene.project, scene.log, to=ids[1])
    assert plan.quarantine_ms == (scene.time_of(ids[1]) + 1, waiting_ms + 1)


def test_the_operators_quarantine_replaces_the_default(scene):
    ids = scene.commit(4)
    scene.roll_back(to=ids[1], quarantine_ms=(5, 9))
    assert [q.times_ms for q in scene.store.ledger.quarantines.active(0).entries] == [(5, 9)]


def test_an_empty_quarantine_is_refused_before_anything_changes(scene):
    ids = scene.commit(4)
    with pytest.raises(InputError, match="is empty"):
        scene.roll_back(to=ids[1], quarantine_ms=(9, 9))
    assert scene.store.ledger.generation() == 0
    assert scene.commit()[0].generation == 0


def test_a_later_rollback_preserves_earlier_quarantines(scene):
    ids = scene.commit(8)
    scene.roll_back(to=ids[5])
    scene.restart()
    scene.commit(2)
    scene.roll_back(to=ids[1])
    assert scene.store.ledger.quarantines.active(0).ids() == [1, 2]
    assert scene.store.outline(scene.store.current(0)).quarantines_seen == [1, 2]


def test_a_rollback_past_retained_versions_includes_the_keys_of_removed_ones(tmp_path):
    scene = Scene(tmp_path, retention={"newest": 1, "all_s": 100, "ten_minutes_s": 86_400})
    scene.worlds[0].step_ms = 100_000
    scene.commit(25, full_every=4)
    scene.store.retain(0, scene.worlds[0].at_ms)
    lineage = scene.store.lineage(0)
    assert len(lineage) < 20
    target = lineage[1].id
    scene.roll_back(to=target)
    assert shown(follow(scene)) == scene.worlds[0].expected[target][1]
    scene.close()


def test_retention_preserves_the_target_of_the_current_generation(tmp_path):
    scene = Scene(tmp_path, retention={"newest": 1, "all_s": 1, "ten_minutes_s": 2, "daily_s": 3})
    scene.worlds[0].step_ms = 100_000
    ids = scene.commit(6)
    scene.roll_back(to=ids[3])
    scene.restart()
    later = scene.commit(6)
    scene.store.retain(0, scene.worlds[0].at_ms)
    assert rows_of(scene.store.restore(ids[3])) == scene.worlds[0].expected[ids[3]][0]
    assert rows_of(scene.store.restore(later[-1])) == scene.worlds[0].expected[later[-1]][0]
    scene.close()


def test_undone_versions_are_removed_together_once_they_are_old(tmp_path):
    scene = Scene(tmp_path, retention={"newest": 1, "all_s": 300, "ten_minutes_s": 86_400})
    scene.worlds[0].step_ms = 100_000
    ids = scene.commit(6)
    for id in ids[4:]:
        (path_of(scene.store.folder) / scene.store.ledger.version(id).path).write_bytes(b"rot")
    scene.roll_back(to=ids[2])
    scene.restart()
    listed = []
    for more in (3, 1):
        scene.commit(more)
        with closing(VersionStore(scene.project)) as trainer:
            trainer.raise_epoch(0)
            trainer.retain(0, scene.worlds[0].at_ms)
        scene.restart()
        listed.append([v.id.sequence for v in scene.store.versions(0) if v.id.generation == 0])
    assert listed == [[1, 2, 3, 4, 5, 6], [1, 2, 3]]
    scene.close()


def test_a_full_published_before_the_target_is_the_published_one_again(scene):
    ids = scene.commit(8)
    scene.store.ledger.published.set("full", ids[1], "old")
    scene.store.ledger.published.set("full", ids[6], "undone")
    assert scene.store.ledger.published.latest("full", 0).path == "undone"
    scene.roll_back(to=ids[3])
    assert scene.store.ledger.published.latest("full", 0).path == "old"


def test_an_outdated_plan_is_refused(scene):
    ids = scene.commit(8)
    plan = plan_rollback(scene.project, scene.log, to=ids[5])
    scene.roll_back(to=ids[2])
    with pytest.raises(RollbackError, match="plan the rollback again"):
        roll_back(scene.project, scene.log, plan)


def test_versions_committed_after_planning_are_undone_too(scene):
    ids = scene.commit(5)
    plan = plan_rollback(scene.project, scene.log, to=ids[1])
    scene.commit(3)
    roll_back(scene.project, scene.log, plan)
    assert shown(follow(scene)) == scene.worlds[0].expected[ids[1]][1]


def test_a_damaged_target_is_refused_before_a_trainer_is_fenced(scene):
    ids = scene.commit(5, full_every=2)
    path = path_of(scene.store.folder) / scene.store.ledger.version(ids[1]).path
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=path.name):
        scene.roll_back(to=ids[1])
    assert scene.store.ledger.generation() == 0
    assert scene.commit()[0].generation == 0


@pytest.mark.parametrize("full_every", [2, 1000])
def test_damaged_undone_versions_do_not_prevent_a_rollback(scene, full_every):
    ids = scene.commit(9, full_every)
    handles = scene.store.outline(ids[-1]).next_handles
    for id in ids[4:]:
        (path_of(scene.store.folder) / scene.store.ledger.version(id).path).write_bytes(b"rot")
    scene.roll_back(to=ids[3])
    assert shown(follow(scene)) == scene.worlds[0].expected[ids[3]][1]
    assert scene.store.outline(scene.store.current(0)).next_handles == handles
    for seen in range(4, 10):
        served = follow(scene, upto=seen)
        apply(served, scene.deltas()[-1])
        assert shown(served) == scene.worlds[0].expected[ids[3]][1]


def test_damaged_undone_versions_are_reported_if_the_topic_was_trimmed(scene):
    ids = scene.commit(9)
    path = path_of(scene.store.folder) / scene.store.ledger.version(ids[6]).path
    path.unlink()
    scene.log.trim(scene.project.config.topics.deltas, 0, 6)
    with pytest.raises(DamagedError, match=f"{path.name}, which version {ids[8]} needs, is missing"):
        scene.roll_back(to=ids[3])
    assert scene.store.ledger.generation() == 0


def test_two_shards_are_rolled_back_together(tmp_path):
    scene = Scene(tmp_path, shards=2)
    first, second = scene.commit(6), scene.commit(9, shard=1)
    before_ms = scene.time_of(first[3])
    report = scene.roll_back(before_ms=before_ms)
    assert [shard.target for shard in report.shards] == [str(first[2]), str(second[2])]
    for shard, target in enumerate((first[2], second[2])):
        assert shown(follow(scene, shard)) == scene.worlds[shard].expected[target][1]
        assert scene.store.current(shard) == VersionId(1, shard, 2, 4)
    scene.close()


def test_an_unaffected_shard_enters_the_new_generation_unchanged(tmp_path):
    scene = Scene(tmp_path, shards=2)
    first, second = scene.commit(9), scene.commit(2, shard=1)
    scene.roll_back(to=first[5])
    assert shown(follow(scene, 1)) == scene.worlds[1].expected[second[-1]][1]
    assert scene.store.current(1) == VersionId(1, 1, 2, 3)
    scene.close()


def test_a_rollback_is_announced_and_audited(scene):
    ids = scene.commit(5)
    report = scene.roll_back(to=ids[1])
    records = scene.log.read(scene.project.config.topics.notices, 0, 0)
    assert b"springtide.rollback" in records[-1].value
    record = scene.store.ledger.rollbacks()[0]
    assert (record.state, record.targets[0], record.currents[0]) == ("done", ids[1], ids[4])
    assert record.document["reason"] == f"rollback to {ids[1]}"
    assert record.audit["shards"][0]["version"] == report.shards[0].version
    assert finish_rollbacks(scene.project, scene.log) == []


PROCESS = """
import sys
from pathlib import Path
from pipeline.process import crash_point
from pipeline.logs.open import open_log
from pipeline.rollback.act import finish_rollbacks, roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.versions.state import VersionId
from tests.support.synthetic.commits import project_in

project = project_in(Path(sys.argv[1]), int(sys.argv[3]))
log = open_log(project)
crash_point.arm_crash_point(sys.argv[2])
if sys.argv[4] == "resume":
    finish_rollbacks(project, log)
else:
    roll_back(project, log, plan_rollback(project, log, to=VersionId.parse(sys.argv[4])))
"""


def kill_at(scene, tmp_path, point, argument):
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), str(tmp_path), point]
    command += [str(len(scene.worlds)), str(argument)]
    ended = subprocess.run(command, cwd=str(Path(__file__).parents[2]), timeout=120)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", ["rollback.after_plan", "rollback.after_delta", "rollback.after_delta:2"])
def test_a_rollback_killed_at_any_point_is_completed_by_resuming(tmp_path, point):
    scene = Scene(tmp_path, shards=2)
    first, second = scene.commit(7), scene.commit(7, shard=1)
    kill_at(scene, tmp_path, point, first[2])
    with pytest.raises(RollbackError, match="rollback 1 is unfinished"):
        scene.store.raise_epoch(0)
    with pytest.raises(RollbackError, match="rollback 1 is unfinished"):
        scene.roll_back(to=first[1])
    with pytest.raises(FencedError):
        scene.store.commit(scene.worlds[0].build())
    finish_rollbacks(scene.project, scene.log)
    for shard, target in enumerate((first[2], second[2])):
        assert shown(follow(scene, shard)) == scene.worlds[shard].expected[target][1]
        levels = [decode_delta(encoded).level for encoded in scene.deltas(shard)]
        assert levels == ["realtime"] * 7 + ["reverse"]
        scene.restart(shard)
        assert scene.commit(shard=shard)[0] == VersionId(1, shard, 2, 5)
    assert [record.state for record in scene.store.ledger.rollbacks()] == ["done"]
    scene.close()


def test_a_rollback_killed_again_while_resuming_publishes_the_same_bytes(tmp_path):
    scene = Scene(tmp_path)
    ids = scene.commit(7)
    kill_at(scene, tmp_path, "rollback.after_delta", ids[2])
    deltas = scene.deltas()
    kill_at(scene, tmp_path, "rollback.after_delta", "resume")
    assert scene.deltas() == deltas
    finish_rollbacks(scene.project, scene.log)
    assert scene.deltas() == deltas
    assert scene.store.delta(scene.store.current(0)) == deltas[-1]
    scene.close()
