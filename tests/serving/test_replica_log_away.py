"""A replica whose log is slow or away: it serves on, and says how it stands."""

import threading

import pytest

from pipeline.process.clock import SystemClock
from pipeline.serving.readings import replica_readings
from pipeline.serving.replica import Replica
from tests.support.synthetic import SyntheticTrainer, project_at


class SlowToTellItsEnd:
    """A log that says where a partition ends only when `told` is set."""

    def __init__(self, log):
        self._log, self.asked, self.told = log, threading.Event(), threading.Event()

    def end_offset(self, topic, partition):
        self.asked.set()
        self.told.wait(10)
        return self._log.end_offset(topic, partition)

    def __getattr__(self, name):
        return getattr(self._log, name)


@pytest.fixture
def trainer(tmp_path):
    made = SyntheticTrainer(project_at(tmp_path))
    yield made
    made.close()


def test_a_status_that_waits_for_the_log_keeps_no_delta_waiting(trainer):
    trainer.run(2)
    slow = SlowToTellItsEnd(trainer.log)
    slow.told.set()
    replica = Replica(trainer.project, slow)
    replica.catch_up()
    trainer.run(1)
    slow.asked.clear()
    slow.told.clear()
    asking = threading.Thread(target=replica.status)
    asking.start()
    try:
        assert slow.asked.wait(20)
        assert replica.catch_up() == 1
        assert asking.is_alive()
    finally:
        slow.told.set()
        asking.join()


def test_a_status_does_not_wait_for_a_log_that_is_away(trainer):
    trainer.run(2)
    slow = SlowToTellItsEnd(trainer.log)
    slow.told.set()
    replica = Replica(trainer.project, slow)
    replica.catch_up()
    slow.told.clear()
    (shard,) = replica.status()["shards"]
    assert (shard["version"], shard["lag_records"]) == ("g0/s0-of-1/2", None)
    told = {reading.metric.name: reading.value for reading in replica_readings(replica)}
    assert told["springtide_served_sequence"] == 2
    assert "springtide_delta_lag_records" not in told
    slow.told.set()
    trainer.run(1)
    clock = SystemClock()
    ends_s = clock.monotonic_s() + 20
    while (lag := replica.status()["shards"][0]["lag_records"]) is None:
        assert clock.monotonic_s() < ends_s
        clock.wait(0.01)
    assert lag == 1
