"""A replica whose log is slow or unavailable continues to serve and reports its status."""

import threading

import pytest

from pipeline.process.clock import SystemClock
from pipeline.serving.readings import replica_readings
from pipeline.serving.replica import Replica
from tests.support.synthetic import SyntheticTrainer, project_at


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
