"""Superseded files are deleted while replicas read: none is missing, none is reported as damaged."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.publish.hooks.notices import Hooks
from pipeline.publish.levels.level_publisher import LevelPublisher
from pipeline.serving.replica import Replica
from pipeline.versions.deltas.published_files import delta_manifest_files
from pipeline.versions.store.version_store import VersionStore
from tests.rollback.test_rollback import Scene
from tests.serving.test_replica import assert_equal_to, refused, rolled_back
from tests.support.synthetic.trainer import SyntheticTrainer, project_at
from tests.support.world.stored_paths import path_of


@pytest.fixture
def trainer(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    yield trainer
    trainer.close()


def vanishing(path):
    """Replace a file by one that is listed but cannot be opened."""
    path.unlink(missing_ok=True)
    path.symlink_to("gone")


def test_a_file_dropped_between_listing_and_reading_is_not_refused(trainer):
    for _ in range(2):
        trainer.run(2)
        trainer.levels.publish_full()
    vanishing(path_of(trainer.project.published) / "g0/s0-of-1/full-0-2.json")
    replica = Replica(trainer.project, trainer.log)
    replica.catch_up()
    assert_equal_to(trainer, replica)
    assert refused(replica) == {}


def test_a_damaged_file_can_be_dropped(trainer):
    trainer.run(2)
    trainer.levels.publish_full()
    trainer.log.trim("deltas", 0, 1)
    manifest = path_of(trainer.project.published) / "g0/s0-of-1/full-0-2.json"
    manifest.write_text("{")
    replica = Replica(trainer.project, trainer.log)
    for _ in range(2):
        replica.catch_up()
        assert refused(replica) == {"file": 1, "gap": 1}
        vanishing(manifest)


def test_a_replica_at_any_version_catches_up_after_old_files_are_dropped(trainer):
    behind = []
    for number in range(1, 11):
        behind.append(Replica(trainer.project, trainer.log))
        trainer.run(1)
        behind[-1].catch_up()
        trainer.levels.publish_full() if number in (2, 5, 8) else trainer.levels.publish_incremental()
    trainer.log.trim("deltas", 0, trainer.log.end_offset("deltas", 0))
    assert len(delta_manifest_files(trainer.project.published, 0, 1)) == 6
    for replica in [Replica(trainer.project, trainer.log), *behind]:
        replica.catch_up()
        assert_equal_to(trainer, replica)


def test_after_a_rollback_the_undone_full_and_its_reverse_delta_stay(trainer):
    behind = Replica(trainer.project, trainer.log)
    trainer.run(1)
    behind.catch_up()
    for _ in range(2):
        trainer.run(2)
        trainer.levels.publish_full()
    rolled_back(trainer, 1)
    LevelPublisher(trainer.project, trainer.store, trainer.hooks, 0).publish_full()
    undone, latest, reverse = map(path_of, delta_manifest_files(trainer.project.published, 0, 1))
    assert (undone.stem, latest.stem, reverse.stem) == ("full-0-5", "full-0-3", "reverse-2-3")
    trainer.log.trim("deltas", 0, trainer.log.end_offset("deltas", 0))
    behind.catch_up()
    latest.with_suffix(".delta").write_bytes(b"damaged")
    late = Replica(trainer.project, trainer.log)
    late.catch_up()
    assert behind.digest() == late.digest() == trainer.commits[1].prepared.served_digest


def test_a_replica_that_starts_while_files_are_dropped_is_complete(trainer):
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


def test_after_a_rollback_the_latest_full_may_be_of_a_dropped_version(tmp_path):
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
