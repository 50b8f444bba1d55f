"""The contract of the log for the engines without a server. Everything is written through the embedded log."""

from collections.abc import Callable

import pytest

from pipeline.logs.archive.archive_log import ArchiveLog
from pipeline.logs.interface.log import Log, ReadLimits
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from tests.support.manual_clock import ManualClock
from tests.support.world.archive_writer import write_archive
from tests.support.world.log_contract import LogContract

NOON_MS = 1_700_000_000_000


@pytest.fixture
def clock():
    return ManualClock(NOON_MS)


@pytest.fixture
def log(tmp_path, clock):
    made = SqliteLog(tmp_path / "logs", clock)
    made.create_topic("t", 2)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "archive", "archive in many files"])
def reading(request, tmp_path, log) -> Callable[[], Log]:
    """Returns the log to read from, after everything was written to `log`."""

    def sealed() -> Log:
        if request.param == "sqlite":
            return log
        for topic in log.topics():
            write_archive(
                log, topic, tmp_path / "archive", ReadLimits(records=2 if "many" in request.param else 10_000)
            )
        return ArchiveLog(tmp_path / "archive")

    return sealed


class TestEveryEngine(LogContract):
    def test_append_times_are_those_of_the_clock(self, log, clock, reading):
        log.append("t", 0, [b"a", b"b"])
        clock.wait(1)
        log.append("t", 0, [b"c"])
        assert [r.appended_at_ms for r in reading().read("t", 0, 0)] == [NOON_MS, NOON_MS, NOON_MS + 1000]
