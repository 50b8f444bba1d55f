"""Published files that are dropped, beside replicas that look for them: none is missed, none is taken for a bad one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.publish.hooks import Hooks
from pipeline.publish.level_publisher import LevelPublisher
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.published_files import delta_manifest_paths
from pipeline.versions.store import VersionStore
from tests.rollback.test_rollback import Scene
from tests.serving.test_replica import assert_equal_to, refused, rolled_back
from tests.support.synthetic import SyntheticTrainer, project_at


@pytest.fixture
def trainer(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    yield trainer
    trainer.close()


def vanishing(path):
    """A file that is listed and, once somebody reads it, gone."""
    path.unlink(missing_ok=True)
    path.symlink_to("gone")


def test_a_file_that_is_dropped_between_look_and_read_is_no_bad_file(trainer):
    for _ in range(2):
        trainer.run(2)
        trainer.levels.publish_full()
    vanishing(trainer.project.published / "g0/s0-of-1/full-0-2.json")
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    assert_equal_to(trainer, replica)
    assert refused(replica) == {}


def test_a_damaged_file_may_be_dropped_like_any_other(trainer):
    trainer.run(2)
    trainer.levels.publish_full()
    trainer.log.trim("deltas", 0, 1)
    manifest = trainer.project.published / "g0/s0-of-1/full-0-2.json"
    manifest.write_text("{")
    replica = Replica(trainer.project, trainer.log)
    for _ in range(2):
        replica.catch_up()
        assert refused(replica) == {"file": 1, "gap": 1}
        vanishing(manifest)


def test_however_far_behind_a_replica_finds_its_way_once_old_files_are_dropped(trainer):
    behind = []
    for number in range(1, 11):
        behind.append(Replica(trainer.project, trainer.log))
        trainer.run(1)
        behind[-1].catch_up()
        trainer.levels.publish_full() if number in (2, 5, 8) else trainer.levels.publish_incremental()
    trainer.log.trim("deltas", 0, trainer.log.end_offset("deltas", 0))
    assert len(delta_manifest_paths(trainer.project.published, 0, 1)) == 6
    for replica in [Replica(trainer.project, trainer.log), *behind]:
        replica.catch_up()
        assert_equal_to(trainer, replica)


def test_after_a_rollback_the_undone_full_stays_with_the_way_back_from_it(trainer):
    behind = Replica(trainer.project, trainer.log)
    trainer.run(1)
    behind.catch_up()
    for _ in range(2):
        trainer.run(2)
        trainer.levels.publish_full()
    rolled_back(trainer, 1)
    LevelPublisher(trainer.project, trainer.store, trainer.hooks, 0).publish_full()
    undone, newest, reverse = delta_manifest_paths(trainer.project.published, 0, 1)
    assert (undone.stem, newest.stem, reverse.stem) == ("full-0-5", "full-0-3", "reverse-2-3")
    trainer.log.trim("deltas", 0, trainer.log.end_offset("deltas", 0))
    behind.catch_up()
    newest.with_suffix(".delta").write_bytes(b"damaged")
    late = Replica(trainer.project, trainer.log)
    late.catch_up()
    assert behind.digest() == late.digest() == trainer.commits[1].prepared.served_digest


def test_a_replica_starts_whole_while_files_are_dropped(trainer):
    trainer.run(1)
    trainer.levels.publish_full()
    done, started = threading.Event(), []

    def start():
        while not done.is_set():
            replica = Replica(trainer.project, trainer.log)
            replica.catch_up()
            started.append((replica.version, replica.digest(), refused(replica)))

    with ThreadPoolExecutor(1) as beside:
        starting = beside.submit(start)
        try:
            for _ in range(40):
                trainer.run(1)
                trainer.levels.publish_full()
        finally:
            done.set()
    starting.result()
    digests = {str(commit.id): commit.prepared.served_digest for commit in trainer.commits}
    assert len(started) > 3
    assert all(digests[version] == digest and not bad for version, digest, bad in started)


def test_a_full_that_counts_again_may_be_of_a_version_that_was_thinned(tmp_path):
    scene = Scene(tmp_path, retention={"all_s": 100, "ten_minutes_s": 86_400})
    scene.worlds[0].step_ms = 100_000
    ids = scene.commit(25, full_every=4)
    scene.store.ledger.published.set("full", ids[20], "undone")
    dropped = scene.store.retain(0, scene.worlds[0].at_ms).dropped
    scene.store.ledger.published.set("full", dropped[0].id, "old")
    scene.roll_back(to=next(v.id for v in scene.store.lineage(0) if v.id > dropped[0].id))
    assert scene.store.ledger.published.latest("full", 0).path == "old"
    scene.restart()
    scene.commit()
    VersionStore(scene.project).retain(0, scene.worlds[0].at_ms)
    [made] = LevelPublisher(scene.project, scene.store, Hooks(scene.project, scene.log), 0).publish_due(0)
    assert (made.level, made.generation) == ("full", 1)
    scene.close()
