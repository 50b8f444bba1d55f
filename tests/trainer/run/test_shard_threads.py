"""A trainer driven in turns learns what a round in process learns, and outlives halts, rollbacks and take-overs."""

import threading

import pytest

from pipeline.errors import FencedError
from pipeline.logs.beam.worker import register, release
from pipeline.logs.open import open_log
from pipeline.process.clock import SystemClock
from pipeline.quarantine.sample_mask import Choice
from pipeline.rollback.act import finish_rollbacks, roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.telemetry import metrics
from pipeline.trainer.run.in_process import run_train
from pipeline.trainer.run.on_flink import TrainShards
from pipeline.trainer.run.shard import TrainerShard
from pipeline.trainer.run.shard_session import ShardSession
from pipeline.trainer.run.shard_threads import Deadline, ShardThread, ShardThreads, learn_for
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import START_MS, append_samples, make_project, make_samples
from tests.support.world.beam_parts import Timer

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
    current = store.current(0)
    return 0 if current is None else store.ledger.version(current).samples_seen


def open_session(project, log):
    return ShardSession(project, log, VersionStore(project), 0)


def turns_until(session, reached):
    for _ in range(300):
        if reached():
            return
        learn_for(session, SystemClock(), 0.2)
    raise AssertionError("not after 300 turns")


def turn_until(threads, reached):
    """As a runner does: turns of the shard in this process."""
    clock = SystemClock()
    ends_s = clock.monotonic_s() + 60
    while not reached():
        assert clock.monotonic_s() < ends_s
        threads.keep_alive(0)
        clock.wait(0.02)


def wait_for(reached):
    clock = SystemClock()
    ends_s = clock.monotonic_s() + 60
    while not reached():
        assert clock.monotonic_s() < ends_s
        clock.wait(0.01)


def test_worker_tells_of_the_trainer_it_holds(shop):
    project, log = shop
    threads = ShardThreads(project, log)

    def told():
        return {r.metric: r.value for r in threads.readings() if r.labels == ("0",)}

    assert told() == {}
    turn_until(threads, lambda: seen(project) == ROWS)
    assert told()[metrics.TRAIN_SAMPLES] == seen(project) > 0
    assert (told()[metrics.TRAIN_LAG], told()[metrics.TRAIN_HALTED]) == (0, 0)
    threads.close()
    assert told() == {}


def test_turns_learn_what_a_round_in_process_learns(shop, tmp_path):
    project, log = shop
    session = open_session(project, log)
    turns_until(session, lambda: seen(project) == ROWS)
    append_samples(log, project, make_samples(1, 640, first=ROWS))
    turns_until(session, lambda: seen(project) == ROWS + 640)
    session.close()
    calm = make_project(tmp_path / "calm")
    calm_log = open_log(calm)
    append_samples(calm_log, calm, make_samples(1, ROWS))
    append_samples(calm_log, calm, make_samples(1, 640, first=ROWS))
    run_train(calm, calm_log, until_end=True)
    assert (digest(project), seen(project)) == (digest(calm), seen(calm))


def test_rollback_moves_the_open_shard_to_the_new_generation(shop):
    project, log = shop
    session = open_session(project, log)
    turns_until(session, lambda: seen(project) == ROWS)
    roll_back(project, log, plan_rollback(project, log, before_ms=START_MS + 1000 * 1000))
    target = seen(project)
    turns_until(session, lambda: seen(project) > target)
    session.close()
    assert VersionStore(project).current(0).generation == 1
    assert seen(project) <= 1000


def test_rollback_that_skips_chosen_samples_is_replayed_as_in_process(shop, tmp_path):
    project, log = shop
    calm = make_project(tmp_path / "calm")
    calm_log = open_log(calm)
    append_samples(calm_log, calm, make_samples(1, ROWS))
    session = open_session(project, log)
    turns_until(session, lambda: seen(project) == ROWS)
    run_train(calm, calm_log, until_end=True)
    choice = Choice.read(project.config, "user in ('u3', 'u7')", None)
    for each, its_log in ((project, log), (calm, calm_log)):
        roll_back(each, its_log, plan_rollback(each, its_log, before_ms=START_MS + 1000 * 1000, choice=choice))
    run_train(calm, calm_log, until_end=True)
    turns_until(session, lambda: seen(project) == seen(calm))
    session.close()
    assert 1000 < seen(project) < ROWS
    assert digest(project) == digest(calm)


@pytest.mark.parametrize("reopened", [False, True])
def test_rollback_that_is_half_done_is_waited_for(shop, reopened):
    project, log = shop
    session = open_session(project, log)
    turns_until(session, lambda: seen(project) == ROWS)
    before, plan = seen(project), plan_rollback(project, log, before_ms=START_MS + 1000 * 1000)
    targets = {shard.target.shard: shard.target for shard in plan.shards}
    quarantine = Quarantine(0, plan.reason, times_ms=plan.quarantine_ms)
    VersionStore(project).ledger.begin_rollback(targets, quarantine, plan.describe())
    if reopened:
        session.close()
    learn_for(session, SystemClock(), 0.2)
    learn_for(session, SystemClock(), 0.2)
    assert seen(project) == before
    finish_rollbacks(project, log)
    target = seen(project)
    turns_until(session, lambda: seen(project) > target)
    session.close()
    assert VersionStore(project).current(0).generation == 1
    assert seen(project) <= 1000


def test_halted_shard_waits_and_goes_on_after_quarantine_and_resume(shop):
    project, log = shop
    append_samples(log, project, make_samples(1, 64, first=ROWS, bad=slice(0, 64)))
    append_samples(log, project, make_samples(1, 64, first=ROWS + 64))
    session = open_session(project, log)
    ledger = VersionStore(project).ledger
    turns_until(session, lambda: ledger.halts.get(0))
    assert seen(project) < ROWS + 64
    bad = (START_MS + ROWS * 1000, START_MS + (ROWS + 64) * 1000)
    ledger.quarantines.add(Quarantine(0, "bots", times_ms=bad))
    ledger.halts.clear(0)
    turns_until(session, lambda: seen(project) == ROWS + 64)
    assert not ledger.halts.get(0)
    session.close()


def test_trainer_that_was_taken_over_ends_its_turn_with_the_error(shop):
    project, log = shop
    zombie = open_session(project, log)
    turns_until(zombie, lambda: seen(project) == ROWS)
    newer = TrainerShard(project, log, VersionStore(project), 0)
    append_samples(log, project, make_samples(1, 128, first=ROWS))
    with pytest.raises(FencedError):
        turns_until(zombie, lambda: False)
    newer.train(log.end_offset("samples", 0), threading.Event())
    newer.close()
    assert seen(project) == ROWS + 128


def test_backlog_is_learned_from_in_more_than_one_turn(shop):
    clock = SystemClock()
    ends = Deadline(clock, 0.05)
    assert not ends.is_set()
    clock.wait(0.06)
    assert ends.is_set()


def test_beam_gives_every_shard_its_next_turn(shop):
    project, log = shop
    handle = register(project, log)
    step, first = TrainShards(handle, (7,)), Timer()
    step.process((7, b""), first)
    assert first.is_set
    for _ in range(2):
        following = Timer()
        step.train(7, following)
        assert following.is_set
    wait_for(lambda: seen(project) == ROWS)
    step.teardown()
    release(handle)


def test_threads_of_one_worker_take_turns(shop):
    project, log = shop
    shards = ShardThreads(project, log)
    threads = [threading.Thread(target=shards.keep_alive, args=(0,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: seen(project) == ROWS)
    shards.close()


def test_held_shard_learns_between_two_turns(shop):
    project, log = shop
    held = ShardThread(project, log, 0, abandoned_after_s=60)
    wait_for(lambda: seen(project) == ROWS)
    assert not held.ended
    held.close()
    assert held.ended


def test_held_shard_that_nobody_wants_is_let_go(shop):
    project, log = shop
    held = ShardThread(project, log, 0, abandoned_after_s=0)
    wait_for(lambda: held.ended)
    held.keep_alive()
    assert next(iter(held.readings())).metric == metrics.TRAIN_HALTED
    assert seen(project) == 0


def test_what_ends_a_held_shard_is_raised_by_its_next_turn_and_the_one_after_opens_it_again(shop):
    project, log = shop
    threads = ShardThreads(project, log)
    turn_until(threads, lambda: seen(project) == ROWS)
    newer = TrainerShard(project, log, VersionStore(project), 0)
    append_samples(log, project, make_samples(1, 128, first=ROWS))
    with pytest.raises(FencedError):
        turn_until(threads, lambda: False)
    newer.close()
    turn_until(threads, lambda: seen(project) == ROWS + 128)
    threads.close()
