"""Every path of deltas ends in the same dense weights: realtime, incremental and full, gaps, rollbacks, restarts."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import DamagedError, DeltaError
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.served_shard import DeltaStatus, ServedShard
from pipeline.versions.deltas.delta import Delta, DenseChange, complete_delta, decode_delta, delta_name
from pipeline.versions.deltas.published_files import delta_manifests, read_published
from tests.support.synthetic.dense_walk import ROUNDED, DenseTrainer
from tests.support.synthetic.trainer import DIMS, project_at


@pytest.fixture
def trainer(tmp_path):
    made = DenseTrainer(project_at(tmp_path, publish=ROUNDED))
    yield made
    made.close()


def available(trainer: DenseTrainer) -> list[tuple[Delta, str]]:
    """Everything that a replica may find: the deltas of the commits, and the files."""
    encoded = [commit.prepared.encoded for commit in trainer.commits]
    files = delta_manifests(trainer.project.published, 0, 1)
    encoded += [read_published(path, manifest)[1] for path, manifest in files]
    return [(decode_delta(each), delta_name(each)) for each in encoded]


def fits(shard: ServedShard, delta: Delta, name: str) -> bool:
    with suppress(DeltaError):
        return shard.check(delta, name) is DeltaStatus.APPLICABLE
    return False


def wander(shard: ServedShard, found: list[tuple[Delta, str]], random: np.random.Generator) -> None:
    """Apply what fits, in a random order, until nothing does."""
    while fitting := [each for each in found if fits(shard, *each)]:
        delta, name = fitting[random.integers(len(fitting))]
        shard.switch(shard.stage(delta, name), lambda dense: None)


def assert_all_paths_end_alike(trainer: DenseTrainer, found: list[tuple[Delta, str]], seed: int) -> None:
    for number in range(4):
        shard = ServedShard(0, 1, DIMS)
        wander(shard, found, np.random.default_rng([seed, number]))
        assert shard.dense == trainer.publisher.served_dense
        assert shard.digest == shard.scan_digest() == trainer.publisher.served_digest


@pytest.mark.parametrize("seed", range(4))
def test_random_paths_over_restarts_end_in_the_same_bytes(tmp_path, seed):
    trainer, random = DenseTrainer(project_at(tmp_path, publish=ROUNDED), seed), np.random.default_rng(seed)
    for number in range(12):
        trainer.commit(flush=bool(random.random() < 0.2))
        if number == 8 or random.random() < 0.3:
            trainer.levels.publish_incremental()
        if number == 5 or random.random() < 0.2:
            trainer.levels.publish_full()
        if random.random() < 0.2:
            trainer.restart()
    found = available(trainer)
    assert {delta.level for delta, _ in found} == {"realtime", "incremental", "full"}
    assert_all_paths_end_alike(trainer, found, seed)
    trainer.close()


def test_a_rollback_and_the_trainer_after_it_lead_to_the_same_bytes(trainer):
    trainer.log.create_topic("samples", 1)
    trainer.run(4)
    wanted = trainer.publisher.served_dense
    trainer.run(3)
    trainer.levels.publish_full()
    roll_back(trainer.project, trainer.log, plan_rollback(trainer.project, trainer.log, to=trainer.commits[3].id))
    assert trainer.store.complete_delta(trainer.store.current(0)).dense == wanted
    trainer.epoch, trainer.delta_writer = trainer.store.raise_epoch(0), DeltaWriter(trainer.project, trainer.log, 0)
    trainer.restart()
    trainer.run(1)
    assert isinstance(trainer.commits[-1].prepared.delta.dense, DenseChange)
    trainer.run(2)
    assert_all_paths_end_alike(trainer, available(trainer), 0)


def test_a_trainer_that_restarts_after_every_commit_sends_the_same_changes(tmp_path):
    sent = []
    for restarting in (False, True):
        trainer = DenseTrainer(project_at(tmp_path / str(restarting), publish=ROUNDED))
        for _ in range(8):
            trainer.commit()
            if restarting:
                trainer.restart()
        sent.append([commit.prepared.delta.dense for commit in trainer.commits])
        trainer.close()
    assert sent[0] == sent[1]
    assert isinstance(sent[0][0], bytes)
    assert all(isinstance(each, DenseChange) for each in sent[0][1:])


def test_only_realtime_deltas_carry_changes(trainer):
    trainer.run(3)
    trainer.levels.publish_full()
    trainer.run(2)
    trainer.levels.publish_incremental()
    for delta, _ in available(trainer)[1:]:
        assert isinstance(delta.dense, DenseChange) == (delta.level == "realtime")


def test_a_version_whose_served_weights_are_not_those_of_its_delta_is_damaged(trainer):
    trainer.run(2)
    encoded = trainer.commits[-1].prepared.encoded
    assert complete_delta(encoded, trainer.publisher.served_dense).dense == trainer.publisher.served_dense
    with pytest.raises(DamagedError, match="dense weights of a version are not those of its realtime delta"):
        complete_delta(encoded, b"")


def test_wrong_dense_weights_are_found_before_anything_changes(trainer):
    shard = ServedShard(0, 1, DIMS)
    for _ in range(2):
        shard.switch(shard.stage(trainer.commit().prepared.delta, "name"), lambda dense: None)
    before = trainer.publisher.served_dense
    last = trainer.commit().prepared.delta
    wrong = replace(last.dense, arrays=b"\7" + last.dense.arrays[1:])
    with pytest.raises(DeltaError, match="would result in served digest"):
        shard.stage(replace(last, dense=wrong), "wrong")
    assert shard.dense == before
    shard.switch(shard.stage(last, "right"), lambda dense: None)
    assert shard.dense == trainer.publisher.served_dense


def test_a_shard_without_dense_weights_of_its_own_follows_changes(trainer):
    shard = ServedShard(0, 1, DIMS, held={"user"})
    trainer.run(5)
    for commit in trainer.commits:
        shard.switch(shard.stage(commit.prepared.delta, "name"), lambda dense: None)
    assert (shard.digest, shard.dense) == (trainer.publisher.served_digest, b"")
