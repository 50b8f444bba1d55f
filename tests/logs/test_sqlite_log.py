"""The embedded log: the part of the interface that needs an engine that writes, and its failures."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from pipeline.errors import DamagedError, FencedError, LogError, LogReplacedError, OffsetError
from pipeline.logs.interface.log import Fence, ReadLimits
from pipeline.logs.sqlite.partition import as_log_error
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.process.clock import SystemClock
from tests.support.manual_clock import ManualClock

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


def test_create_topic_again_changes_nothing(log):
    log.append("t", 0, [b"a"])
    created = log.log_id("t")
    log.create_topic("t", 2)
    assert (log.log_id("t"), log.end_offset("t", 0)) == (created, 1)


def test_create_topic_with_another_number_of_partitions_is_refused(log):
    with pytest.raises(LogError, match="topic t has 2 partitions, 3 are wanted"):
        log.create_topic("t", 3)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a" * 201])
def test_a_topic_name_that_cannot_be_a_folder_is_refused(log, name):
    with pytest.raises(LogError, match="not allowed"):
        log.create_topic(name, 1)


def test_append_times_never_decrease(log, clock):
    log.append("t", 0, [b"a"])
    clock.wait(-5)
    log.append("t", 0, [b"b"])
    clock.wait(6)
    log.append("t", 0, [b"c"])
    assert [r.appended_at_ms - NOON_MS for r in log.read("t", 0, 0)] == [0, 0, 1000]


@pytest.mark.parametrize(("back_s", "appended_at_ms"), [(3_599, NOON_MS), (3_600, NOON_MS - 3_600_000)])
def test_append_times_follow_a_clock_that_is_set_back_by_an_hour(log, clock, back_s, appended_at_ms):
    log.append("t", 0, [b"a"])
    clock.wait(-back_s)
    log.append("t", 0, [b"b"])
    assert [record.appended_at_ms for record in log.read("t", 0, 0)] == [NOON_MS, appended_at_ms]


def test_an_empty_append_uses_no_offset(log):
    assert log.append("t", 0, []) == 0
    assert log.append("t", 0, [b"a"]) == 0


def test_a_read_at_the_end_waits_for_the_given_time(log, clock):
    assert log.read("t", 0, 0, ReadLimits(wait_ms=250)) == []
    assert 250 <= clock.now_ms() - NOON_MS < 260


def test_waiting_ends_with_the_first_record(tmp_path):
    class ClockThatAppendsARecord(ManualClock):
        def wait(self, seconds: float) -> None:
            super().wait(seconds)
            if self.now_ms() == 10:
                writer.append("t", 0, [b"a"])

    clock = ClockThatAppendsARecord()
    reader, writer = SqliteLog(tmp_path, clock), SqliteLog(tmp_path, ManualClock())
    reader.create_topic("t", 1)
    assert [r.value for r in reader.read("t", 0, 0, ReadLimits(wait_ms=1000))] == [b"a"]
    assert clock.now_ms() == 10


def test_acquiring_a_fence_invalidates_the_earlier_one(log):
    first = log.acquire_fence("t", 0)
    log.append("t", 0, [b"a"], fence=first)
    second = log.acquire_fence("t", 0)
    message = f"writer of t/0 is fenced: the current epoch is {second.epoch}, this writer's is {first.epoch}"
    with pytest.raises(FencedError, match=message):
        log.append("t", 0, [b"b"], fence=first)
    log.append("t", 0, [b"c"], fence=second)
    assert [r.value for r in log.read("t", 0, 0)] == [b"a", b"c"]


def test_a_fence_is_valid_for_its_partition_only(log):
    fence = log.acquire_fence("t", 0)
    log.acquire_fence("t", 1)
    log.append("t", 0, [b"a"], fence=fence)
    with pytest.raises(LogError, match="fence of t/0 cannot append to t/1"):
        log.append("t", 1, [b"a"], fence=fence)


def test_a_fence_of_a_later_log_object_invalidates_the_earlier_one(log, tmp_path, clock):
    fence = log.acquire_fence("t", 0)
    SqliteLog(tmp_path / "logs", clock).acquire_fence("t", 0)
    with pytest.raises(FencedError):
        log.append("t", 0, [b"a"], fence=fence)


def test_inputs_are_appended_without_a_fence(log):
    log.acquire_fence("t", 0)
    assert log.append("t", 0, [b"a"]) == 0


def test_trimming_beyond_the_end_is_refused_and_backwards_does_nothing(log):
    log.append("t", 0, [b"a", b"b"])
    with pytest.raises(OffsetError, match="ends at offset 2, cannot trim before 3"):
        log.trim("t", 0, 3)
    log.trim("t", 0, 1)
    log.trim("t", 0, 0)
    assert log.begin_offset("t", 0) == 1


def test_trimming_survives_a_restart(log, tmp_path, clock):
    log.append("t", 0, [b"a", b"b"])
    log.trim("t", 0, 2)
    log.close()
    again = SqliteLog(tmp_path / "logs", clock)
    assert (again.begin_offset("t", 0), again.append("t", 0, [b"c"])) == (2, 2)


def test_a_topic_that_is_created_again_is_another_log(log):
    before = log.log_id("t")
    log.append("t", 0, [b"a"])
    log.delete_topic("t")
    assert log.topics() == []
    log.create_topic("t", 2)
    assert log.log_id("t") != before
    assert log.end_offset("t", 0) == 0


def test_another_reader_sees_the_topic_that_was_created_again(log, tmp_path, clock):
    reader = SqliteLog(tmp_path / "logs", clock)
    log.append("t", 0, [b"old"])
    assert reader.end_offset("t", 0) == 1
    log.delete_topic("t")
    with pytest.raises(LogError, match="does not exist"):
        reader.read("t", 0, 0)
    log.create_topic("t", 2)
    log.append("t", 0, [b"new"])
    assert [r.value for r in reader.read("t", 0, 0)] == [b"new"]


def test_a_fence_of_a_deleted_topic_is_invalid_in_the_new_one(log):
    fence = log.acquire_fence("t", 0)
    log.delete_topic("t")
    log.create_topic("t", 2)
    assert log.acquire_fence("t", 0) == fence  # epochs start again: only the log_id differs
    old = Fence(fence.topic, fence.partition, fence.epoch)
    log.append("t", 0, [b"new"], fence=fence)
    log.delete_topic("t")
    log.create_topic("t", 2)
    with pytest.raises(LogReplacedError, match="topic t was deleted and created again"):
        log.append("t", 0, [b"stale"], fence=old)


def test_threads_append_and_read_concurrently(log):
    def write(who: int) -> None:
        for n in range(20):
            log.append("t", 0, [bytes([who, n])] * 3)

    writers = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for writer in writers:
        writer.start()
    found = []
    while len(found) < 240:
        found += log.read("t", 0, len(found))
    for writer in writers:
        writer.join()
    assert [r.offset for r in found] == list(range(240))
    for who in range(4):
        assert [r.value[1] for r in found if r.value[0] == who] == [n for n in range(20) for _ in range(3)]


WRITER = """
import sys
from pathlib import Path
from pipeline.process.clock import SystemClock
from pipeline.logs.sqlite.sqlite_log import SqliteLog
log = SqliteLog(Path(sys.argv[1]), SystemClock())
for n in range(50):
    log.append("t", 0, [bytes([int(sys.argv[2]), n])] * 2)
"""


def test_processes_append_concurrently_and_no_record_is_lost(log, tmp_path):
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "logs"), str(who)]) for who in (1, 2)]
    assert [process.wait(60) for process in running] == [0, 0]
    found = log.read("t", 0, 0)
    assert [r.offset for r in found] == list(range(200))
    for who in (1, 2):
        assert [r.value[1] for r in found if r.value[0] == who] == [n for n in range(50) for _ in range(2)]
    pairs = [(found[n].value, found[n + 1].value) for n in range(0, 200, 2)]
    assert all(first == second for first, second in pairs)


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.process.clock import SystemClock
from pipeline.logs.sqlite.sqlite_log import SqliteLog
class Killing(list):
    def __iter__(self):
        yield b"half" * 100_000
        os.kill(os.getpid(), signal.SIGKILL)
log = SqliteLog(Path(sys.argv[1]), SystemClock())
log.append("t", 0, [b"whole"])
log.append("t", 0, Killing([b"", b""]))
"""


def test_a_process_killed_inside_an_append_leaves_all_of_its_records_or_none(log, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "logs")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [r.value for r in log.read("t", 0, 0)] == [b"whole"]
    assert log.append("t", 0, [b"next"]) == 1


def test_a_full_disk_is_named_and_nothing_is_partially_written(tmp_path):
    log = SqliteLog(tmp_path, SystemClock())
    log.create_topic("t", 1)
    log.append("t", 0, [b"before"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(LogError, match=r"partition t/0 cannot be written.*free space"):
            log.append("t", 0, [os.urandom(4 << 20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.append("t", 0, [b"after"]) == 1
    assert [r.value for r in log.read("t", 0, 0)] == [b"before", b"after"]


def test_a_full_disk_reported_by_sqlite_is_named_with_a_hint(log, tmp_path):
    connection = sqlite3.connect(tmp_path / "logs" / "t" / "0.sqlite")
    connection.execute("PRAGMA max_page_count=4")
    with pytest.raises(sqlite3.OperationalError, match="disk is full") as full:
        connection.execute("INSERT INTO records VALUES (0, 0, 0, '', zeroblob(1000000), NULL)")
    connection.close()
    error = as_log_error("t/0", full.value)
    assert type(error) is LogError
    assert "partition t/0 cannot be written or read: database or disk is full" in str(error)
    assert "free space" in str(error)


def test_a_file_that_is_not_a_database_is_damaged(log, tmp_path):
    log.close()
    (tmp_path / "logs" / "t" / "1.sqlite").write_bytes(b"not at all a database" * 1000)
    again = SqliteLog(tmp_path / "logs", ManualClock())
    assert again.end_offset("t", 0) == 0
    with pytest.raises(DamagedError, match="partition t/1 is damaged"):
        again.end_offset("t", 1)


def test_a_truncated_file_is_damaged(log, tmp_path):
    log.append("t", 0, [os.urandom(200_000)])
    log.close()
    path = tmp_path / "logs" / "t" / "0.sqlite"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DamagedError, match="t/0"):
        SqliteLog(tmp_path / "logs", ManualClock()).read("t", 0, 0)


def test_a_flipped_byte_in_a_value_is_an_error_and_not_an_event(log, tmp_path):
    log.append("t", 0, [b"first", b"the value that rots" * 10, b"last"])
    log.close()
    path = tmp_path / "logs" / "t" / "0.sqlite"
    content = path.read_bytes()
    assert content.count(b"the value that rots") == 10
    path.write_bytes(content.replace(b"the value that rots", b"the value that rotz", 1))
    again = SqliteLog(tmp_path / "logs", ManualClock())
    assert len(again.read("t", 0, 0, ReadLimits(records=1))) == 1
    with pytest.raises(DamagedError, match="record t/0/1 does not match its checksum"):
        again.read("t", 0, 0)


def test_a_partition_file_of_another_topic_is_refused(log, tmp_path):
    log.create_topic("u", 1)
    log.close()
    (tmp_path / "logs" / "u" / "0.sqlite").rename(tmp_path / "logs" / "t" / "0.sqlite")
    with pytest.raises(DamagedError, match="is of log"):
        SqliteLog(tmp_path / "logs", ManualClock()).read("t", 0, 0)


def test_a_missing_partition_file_is_not_created_again(log, tmp_path):
    log.close()
    (tmp_path / "logs" / "t" / "0.sqlite").unlink()
    with pytest.raises(LogError, match="t/0"):
        SqliteLog(tmp_path / "logs", ManualClock()).append("t", 0, [b"a"])
    assert not (tmp_path / "logs" / "t" / "0.sqlite").exists()


def test_a_damaged_topic_file_is_named(log, tmp_path):
    (tmp_path / "logs" / "t" / "topic.json").write_text("{")
    with pytest.raises(DamagedError, match=r"topic\.json is damaged"):
        log.partitions("t")
