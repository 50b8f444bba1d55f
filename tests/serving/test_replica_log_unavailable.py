"""A replica whose log is slow or unavailable continues to serve and reports its status."""

import threading

import pytest
from structlog.testing import capture_logs

from pipeline.errors import LogError
from pipeline.process.clock import SystemClock
from pipeline.serving.http import follow
from pipeline.serving.readings import replica_readings
from pipeline.serving.replica import Replica
from tests.support.manual_clock import ManualClock
from tests.support.synthetic.trainer import SyntheticTrainer, project_at


class SlowEndOffset:
    """A log that returns end offsets only while `available` is set."""

    def __init__(self, log):
        self._log, self.requested, self.available = log, threading.Event(), threading.Event()
        self.available.set()

    def end_offset(self, topic, partition):
        self.requested.set()
        self.available.wait(10)
        return self._log.end_offset(topic, partition)

    def __getattr__(self, name):
        return getattr(self._log, name)


@pytest.fixture
def trainer(tmp_path):
    made = SyntheticTrainer(project_at(tmp_path))
    yield made
    made.close()


def test_a_status_that_waits_for_the_log_blocks_no_delta(trainer):
    trainer.run(2)
    log = SlowEndOffset(trainer.log)
    replica = Replica(trainer.project, log)
    replica.catch_up()
    trainer.run(1)
    log.requested.clear()
    log.available.clear()
    status = threading.Thread(target=replica.status)
    status.start()
    try:
        assert log.requested.wait(20)
        assert replica.catch_up() == 1
        assert status.is_alive()
    finally:
        log.available.set()
        status.join()


def test_a_status_does_not_wait_for_an_unavailable_log(trainer):
    trainer.run(2)
    log = SlowEndOffset(trainer.log)
    replica = Replica(trainer.project, log)
    replica.catch_up()
    log.available.clear()
    (shard,) = replica.status()["shards"]
    assert (shard["version"], shard["lag_records"]) == ("g0/s0-of-1/2", None)
    values = {reading.metric.name: reading.value for reading in replica_readings(replica)}
    assert values["springtide_served_sequence"] == 2
    assert "springtide_delta_lag_records" not in values
    log.available.set()
    trainer.run(1)
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + 20
    while (lag := replica.status()["shards"][0]["lag_records"]) is None:
        assert clock.monotonic_s() < deadline_s
        clock.wait(0.01)
    assert lag == 1


class UnavailableReads:
    """A log whose reads fail; stops `following` after some of them."""

    def __init__(self, log, stop, reads):
        self._log, self._stop, self._left = log, stop, reads

    def read(self, *arguments):
        self._left -= 1
        if not self._left:
            self._stop.set()
        raise LogError("the broker is away")

    def __getattr__(self, name):
        return getattr(self._log, name)


def test_an_unavailable_log_is_read_with_growing_pauses_and_logged_at_a_bounded_rate(trainer):
    clock, stop = ManualClock(), threading.Event()
    replica = Replica(trainer.project, UnavailableReads(trainer.log, stop, 100))
    with capture_logs() as lines:
        follow(replica, clock, 20, stop)
    assert 90 < clock.monotonic_s() < 100
    assert [line["log_level"] for line in lines] == ["error"] * 10
    assert lines[0]["problem"] == "the broker is away"
    assert sum(line["suppressed"] for line in lines) > 80


def test_the_first_version_is_announced_once(trainer):
    stop, announced = threading.Event(), []
    replica = Replica(trainer.project, trainer.log)
    trainer.run(2)

    def on_ready(version):
        announced.append(version)
        stop.set()

    follow(replica, ManualClock(), 1, stop, on_ready)
    assert announced == ["g0/s0-of-1/2"]
