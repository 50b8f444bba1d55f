"""A trainer driven in turns learns what a round in process learns, and outlives halts, rollbacks and take-overs."""

import threading

import pytest
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker

from pipeline.ground import telemetry
from pipeline.ground.clock import SystemClock
from pipeline.ground.errors import FencedError
from pipeline.logs.open import open_log
from pipeline.logs.source import lend, take_back
from pipeline.rollback.act import resume_pending, roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.trainer.job import run_train
from pipeline.trainer.live import LiveTrainer, TurnEnd, readings, turn
from pipeline.trainer.live_job import TrainLive, Work, WorkTracker
from pipeline.trainer.shard import TrainerShard
from pipeline.versions.quarantine import Quarantine
from pipeline.versions.store import VersionStore
from tests.shop import START_MS, append_samples, make_project, make_samples

ROWS = 1500


@pytest.fixture
def shop(tmp_path):
    project = make_project(tmp_path / "live")
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    return project, log


def digest(project):
    store = VersionStore(project)
    return store.ledger.version(store.current(0)).digest


def seen(project):
    store = VersionStore(project)
    return store.ledger.version(store.current(0)).samples_seen


def turns(live, count=3):
    for _ in range(count):
        live.turn()


def test_worker_tells_of_the_trainer_it_holds(shop):
    project, log = shop

    def told():
        return {r.metric: r.value for r in readings(str(project.root)) if r.labels == ("0",)}

    assert told() == {}
    for _ in range(3):
        turn(project, log, 0)
    assert told()[telemetry.TRAIN_SAMPLES] == seen(project) > 0
    assert (told()[telemetry.TRAIN_LAG], told()[telemetry.TRAIN_HALTED]) == (0, 0)


def test_turns_learn_what_a_round_in_process_learns(shop, tmp_path):
    project, log = shop
    live = LiveTrainer(project, log, 0)
    turns(live)
    append_samples(log, project, make_samples(1, 640, first=ROWS))
    turns(live)
    live.close()
    calm = make_project(tmp_path / "calm")
    calm_log = open_log(calm)
    append_samples(calm_log, calm, make_samples(1, ROWS))
    append_samples(calm_log, calm, make_samples(1, 640, first=ROWS))
    run_train(calm, calm_log, until_end=True)
    assert (digest(project), seen(project)) == (digest(calm), seen(calm))


def test_rollback_moves_the_open_shard_to_the_new_generation(shop):
    project, log = shop
    live = LiveTrainer(project, log, 0)
    turns(live)
    roll_back(project, log, plan_rollback(project, log, before_ms=START_MS + 1000 * 1000))
    target = seen(project)
    turns(live)
    live.close()
    assert VersionStore(project).current(0).generation == 1
    assert target < seen(project) <= 1000


@pytest.mark.parametrize("reopened", [False, True])
def test_rollback_that_is_half_done_is_waited_for(shop, reopened):
    project, log = shop
    live = LiveTrainer(project, log, 0)
    turns(live)
    before, plan = seen(project), plan_rollback(project, log, before_ms=START_MS + 1000 * 1000)
    targets = {shard.target.shard: shard.target for shard in plan.shards}
    quarantine = Quarantine(0, plan.reason, times_ms=plan.quarantine_ms)
    VersionStore(project).ledger.begin_rollback(targets, quarantine, plan.describe())
    if reopened:
        live.close()
    turns(live, 2)
    assert seen(project) == before
    resume_pending(project, log)
    turns(live)
    live.close()
    assert VersionStore(project).current(0).generation == 1
    assert seen(project) <= 1000


def test_halted_shard_waits_and_goes_on_after_quarantine_and_resume(shop):
    project, log = shop
    append_samples(log, project, make_samples(1, 64, first=ROWS, bad=slice(0, 64)))
    append_samples(log, project, make_samples(1, 64, first=ROWS + 64))
    live = LiveTrainer(project, log, 0)
    turns(live)
    ledger, before = VersionStore(project).ledger, seen(project)
    assert ledger.halted(0)
    bad = (START_MS + ROWS * 1000, START_MS + (ROWS + 64) * 1000)
    ledger.add_quarantine(Quarantine(0, "bots", times_ms=bad))
    ledger.clear_halt(0)
    turns(live)
    assert not ledger.halted(0)
    assert before < seen(project) == ROWS + 64
    live.close()


def test_trainer_that_was_taken_over_ends_its_turn_with_the_error(shop):
    project, log = shop
    zombie = LiveTrainer(project, log, 0)
    turns(zombie)
    newer = TrainerShard(project, log, VersionStore(project), 0)
    append_samples(log, project, make_samples(1, 128, first=ROWS))
    with pytest.raises(FencedError):
        zombie.turn()
    newer.train(log.end_offset("samples", 0), threading.Event())
    newer.close()
    assert seen(project) == ROWS + 128


def test_backlog_is_learned_from_in_more_than_one_turn(shop):
    clock = SystemClock()
    ends = TurnEnd(clock, 0.05)
    assert not ends.is_set()
    clock.wait(0.06)
    assert ends.is_set()


def test_beam_gives_every_shard_its_next_turn(shop):
    project, log = shop
    door = lend(project, log)
    step, work = TrainLive(door, [0]), Work(ended=False)
    for _ in range(2):
        safe = ThreadsafeRestrictionTracker(WorkTracker(work))
        step.process(0, RestrictionTrackerView(safe))
        safe.check_done()
        work, _ = safe.deferred_status()
        assert work == Work(ended=False)
    take_back(door)
    assert seen(project) == ROWS


def test_threads_of_one_worker_take_turns(shop):
    project, log = shop
    threads = [threading.Thread(target=turn, args=(project, log, 0)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen(project) == ROWS
