"""Held deltas send nothing that was learned, nothing is lost, and every path over them ends in the same bytes."""

import numpy as np
import pytest

from pipeline.serving.export import served_table
from pipeline.serving.replica import Replica
from tests.support.synthetic.trainer import SyntheticTrainer, project_at


@pytest.fixture
def trainer(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    yield trainer
    trainer.close()


def served(view):
    """By key what a view holds."""
    keys = view.keys()
    return dict(zip(keys.tolist(), view.lookup(keys)[0].tolist(), strict=True))


def test_a_held_delta_removes_keys_and_changes_nothing_else(trainer):
    trainer.run(3)
    before = {name: served(view) for name, view in trainer.publisher.views.items()}
    held = trainer.commit(hold=True).prepared
    assert held.delta.dense == trainer.commits[-2].prepared.delta.dense
    for name, change in held.delta.fields.items():
        removed = set(change.removed.tolist())
        assert len(change) == 0
        assert served(trainer.publisher.views[name]) == {
            key: row for key, row in before[name].items() if key not in removed
        }


def test_what_was_held_is_sent_once_the_state_is_healthy(trainer):
    trainer.run(3)
    held = [trainer.commit(hold=True) for _ in range(3)]
    assert all(len(trainer.publisher.withheld(name)) for name in trainer.tables)
    after = trainer.commit(flush=True).prepared
    assert after.complete
    assert after.delta.dense == trainer.dense != held[-1].prepared.delta.dense
    for name, table in trainer.tables.items():
        assert len(trainer.publisher.withheld(name)) == 0
        assert trainer.publisher.views[name].keys().tolist() == table.keys().tolist()


def test_a_publisher_that_is_opened_anew_while_rows_are_held_continues_the_same(tmp_path):
    """Selection depends on rows and view alone, so both trainers send the same."""
    deltas = []
    for name, restarts in (("one", False), ("other", True)):
        trainer = SyntheticTrainer(project_at(tmp_path / name), seed=3)
        trainer.run(3)
        for hold in (True, True, False):
            trainer.commit(hold=hold)
            if restarts:
                trainer.restart()
        deltas.append([commit.prepared.encoded for commit in trainer.commits])
        trainer.close()
    assert deltas[0] == deltas[1]


@pytest.mark.parametrize("seed", range(3))
def test_every_path_over_held_deltas_gives_the_same_bytes(tmp_path, seed):
    trainer, random = SyntheticTrainer(project_at(tmp_path), seed=seed), np.random.default_rng(seed)
    live, hold = Replica(trainer.project, trainer.log), False
    for _ in range(20):
        hold = random.random() < (0.7 if hold else 0.3)
        trainer.commit(hold=hold, flush=not hold and random.random() < 0.2)
        if random.random() < 0.6:
            live.catch_up()
        if random.random() < 0.4:
            trainer.levels.publish_incremental()
        if random.random() < 0.15:
            trainer.levels.publish_full()
    assert any(not any(len(f) for f in commit.prepared.delta.fields.values()) for commit in trainer.commits)
    late = Replica(trainer.project, trainer.log)
    trainer.levels.publish_incremental()
    for replica in (live, late):
        replica.catch_up()
    trainer.log.trim("deltas", 0, trainer.log.end_offset("deltas", 0))
    from_files = Replica(trainer.project, trainer.log)
    from_files.catch_up()
    for replica in (live, late, from_files):
        assert replica.digest() == trainer.publisher.served_digest
        for name, view in trainer.publisher.views.items():
            assert replica.export(name).equals(served_table([view]))
    trainer.close()
