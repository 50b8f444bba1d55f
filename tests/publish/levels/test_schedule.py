"""Whether CURRENT needs a full: answered from the ledger alone, as the deltas themselves answer it."""

import pytest

from pipeline.publish.levels.schedule import PublishSchedule
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.versions.deltas.delta import decode_delta
from tests.support.synthetic.trainer import SyntheticTrainer, project_at
from tests.support.world.stored_paths import path_of


@pytest.fixture
def trainer(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    yield trainer
    trainer.close()


def needs_full_by_deltas(trainer, part=None):
    """By the chain of all deltas since the latest file of CURRENT's generation, each decoded."""
    current = trainer.store.current(0)
    if current is None:
        return False
    names = [level if part is None else f"{level}/{part}" for level in ("full", "incremental")]
    pointers = [pointer for name in names if (pointer := trainer.store.ledger.published.latest(name, 0))]
    since = max((p.id.sequence for p in pointers if p.id.generation == current.generation), default=None)
    if since == current.sequence:
        return False
    if since is None and current.generation > 0:
        return True
    ids = [v.id for v in trainer.store.lineage(0) if v.id.generation == current.generation]
    deltas = [decode_delta(trainer.store.delta(id)) for id in ids if id.sequence > (since or 0)]
    ends = [since or 0, *(delta.to_sequence for delta in deltas)]
    return any(d.level != "realtime" or d.from_sequence != end for d, end in zip(deltas, ends, strict=False))


def assert_equal(trainer, expected):
    assert trainer.levels.schedule.needs_full() == needs_full_by_deltas(trainer) == expected
    of_part = PublishSchedule(trainer.project.config.publish, trainer.store, 0, "ranker")
    assert of_part.needs_full() == needs_full_by_deltas(trainer, "ranker")


def drop(trainer, *sequences):
    ids = [v.id for v in trainer.store.lineage(0) if v.id.sequence in sequences]
    trainer.store.ledger.drop(0, ids, {})


def test_a_generation_that_begins_with_nothing_needs_none_until_a_delta_is_dropped(trainer):
    assert_equal(trainer, False)
    trainer.run(4)
    assert_equal(trainer, False)
    drop(trainer, 2)
    assert_equal(trainer, True)


@pytest.mark.parametrize(("dropped", "expected"), [(2, False), (3, False), (4, True), (5, True)])
def test_only_deltas_since_the_latest_file_count(trainer, dropped, expected):
    trainer.run(3)
    trainer.levels.publish_incremental()
    assert_equal(trainer, False)
    trainer.run(3)
    drop(trainer, dropped)
    assert_equal(trainer, expected)


def test_after_a_rollback_a_full_is_needed_and_incrementals_continue_from_it(trainer):
    trainer.run(2)
    trainer.levels.publish_full()
    trainer.run(2)
    target = trainer.store.lineage(0)[2].id
    roll_back(
        trainer.project, trainer.log, plan_rollback(trainer.project, trainer.log, to=target, quarantine_ms=(1, 2))
    )
    assert trainer.store.current(0).generation == 1
    assert_equal(trainer, True)
    trainer.levels.publish_full()
    assert_equal(trainer, False)


def test_the_answer_reads_no_file(trainer):
    trainer.run(3)
    for path in path_of(trainer.store.folder).rglob("*.version"):
        path.unlink()
    assert not trainer.levels.schedule.needs_full()
