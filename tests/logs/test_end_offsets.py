"""End offsets of a log that responds, raises, or is unavailable."""

import threading

import pytest

from pipeline.errors import LogError
from pipeline.logs.interface.end_offsets import EndOffsets
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.process.clock import SystemClock
from tests.support.manual_clock import ManualClock

SHORT_S, LONG_S = 0.05, 20.0


class UnavailableLog:
    """A log that returns end offsets after `available` is set."""

    def __init__(self, log):
        self._log, self.available, self.requests = log, threading.Event(), 0

    def end_offset(self, topic, partition):
        self.requests += 1
        self.available.wait(LONG_S)
        return self._log.end_offset(topic, partition)


@pytest.fixture
def log(tmp_path):
    made = SqliteLog(tmp_path, ManualClock())
    made.create_topic("t", 1)
    made.append("t", 0, [b"a", b"b"])
    yield made
    made.close()


def test_the_end_offset_and_the_lag_are_those_of_the_log(log):
    ends = EndOffsets(log, LONG_S)
    assert ends.end_offset("t", 0) == 2
    assert [ends.lag("t", 0, offset) for offset in (0, 2, 3)] == [2, 0, 0]


def test_an_error_of_the_log_is_raised(log):
    with pytest.raises(LogError, match="partition"):
        EndOffsets(log, LONG_S).end_offset("t", 7)


def test_an_unavailable_log_gets_one_request_and_no_caller_waits_for_it(log):
    unavailable, clock = UnavailableLog(log), SystemClock()
    ends = EndOffsets(unavailable, SHORT_S)
    began_s = clock.monotonic_s()
    assert [ends.end_offset("t", 0) for _ in range(50)] == [None] * 50
    assert ends.lag("t", 0, 0) is None
    assert clock.monotonic_s() - began_s < LONG_S / 2
    assert unavailable.requests == 1
    unavailable.available.set()
    deadline_s = clock.monotonic_s() + LONG_S
    while (found := ends.end_offset("t", 0)) is None:
        assert clock.monotonic_s() < deadline_s
        clock.wait(SHORT_S)
    assert found == 2
