"""Write-ahead logs that a kill left behind: a flipped bit is harmless, named or a warning."""

import random
import shutil
import sqlite3

import pytest
from structlog.testing import capture_logs

from pipeline.errors import DamagedError
from pipeline.formats import sqlite_wal
from pipeline.formats.sqlite_wal import check_wal

HEADER, FRAME = 32, 24 + 4096
FLIPS = 150


def write(path, transactions, keep_open=True):
    """A file with one row per transaction, most of several pages, and its connection."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (value BLOB)")
    values = random.Random(transactions)
    for number in range(transactions):
        connection.execute("INSERT INTO rows VALUES (?)", (values.randbytes(1_500 * (number % 4)),))
    return connection


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a file whose process was killed after eight transactions."""
    folder = tmp_path_factory.mktemp("killed")
    connection = write(folder / "alive.sqlite", 8)
    for part in ("", "-wal"):
        shutil.copy(folder / f"alive.sqlite{part}", folder / f"file.sqlite{part}")
    connection.close()
    return folder


@pytest.fixture
def file(killed, tmp_path):
    for part in ("", "-wal"):
        shutil.copy(killed / f"file.sqlite{part}", tmp_path / f"file.sqlite{part}")
    return tmp_path / "file.sqlite"


def flip(file, at, bit=0):
    wal = file.with_name(f"{file.name}-wal")
    content = bytearray(wal.read_bytes())
    content[at] ^= 1 << bit
    wal.write_bytes(content)


def frames(file):
    return (file.with_name(f"{file.name}-wal").stat().st_size - HEADER) // FRAME


def rows(file):
    connection = sqlite3.connect(file)
    try:
        return connection.execute("SELECT value FROM rows").fetchall()
    except sqlite3.Error as failure:
        return str(failure)
    finally:
        connection.close()


def checked(file):
    """`damaged`, `warning` or `complete`."""
    with capture_logs() as logged:
        try:
            check_wal(file, "restore it")
        except DamagedError:
            return "damaged"
    assert all("incomplete" in entry["event"] for entry in logged)
    return "warning" if logged else "complete"


def test_a_log_as_a_kill_leaves_it_is_complete(file):
    assert frames(file) > 8
    assert checked(file) == "complete"
    assert len(rows(file)) == 8


def test_a_file_without_a_log_is_complete(tmp_path):
    assert checked(tmp_path / "none.sqlite") == "complete"
    (tmp_path / "none.sqlite-wal").touch()
    assert checked(tmp_path / "none.sqlite") == "complete"


def test_no_flipped_bit_drops_a_transaction_in_silence(killed, tmp_path):
    places, found = random.Random(7), {"damaged": 0, "warning": 0, "complete": 0}
    wanted = rows(shutil.copytree(killed, tmp_path / "wanted") / "file.sqlite")
    size = (killed / "file.sqlite-wal").stat().st_size
    for trial in range(FLIPS):
        file = shutil.copytree(killed, tmp_path / str(trial)) / "file.sqlite"
        frame = HEADER + places.randrange(frames(file)) * FRAME
        # Headers are small, and each of their fields matters in its own way.
        at = places.choice([places.randrange(HEADER), frame + places.randrange(24), places.randrange(size)])
        flip(file, at, places.randrange(8))
        outcome = checked(file)
        found[outcome] += 1
        if outcome == "complete":
            assert rows(file) == wanted, at
    assert found["damaged"] > FLIPS // 2
    assert found["warning"] > 0


@pytest.mark.parametrize("at", [0, 8, 12, 16, 20, 24, 31])
def test_a_flipped_bit_of_the_header_is_named(file, at):
    flip(file, at)
    assert checked(file) == "damaged"


@pytest.mark.parametrize("at", [0, 4, 8, 12, 16, 20, 24, FRAME - 1])
def test_a_flipped_bit_of_an_early_frame_is_named(file, at):
    flip(file, HEADER + FRAME + at)
    with pytest.raises(DamagedError, match=r"file\.sqlite-wal is damaged: frame 1 .* hint: restore it"):
        check_wal(file, "restore it")


@pytest.mark.parametrize("at", [3, 8, 12, 16, 20, 24, FRAME - 1])
def test_a_flipped_bit_of_the_last_frame_is_a_warning_like_an_interrupted_write(file, at):
    flip(file, HEADER + (frames(file) - 1) * FRAME + at)
    assert checked(file) == "warning"


@pytest.mark.parametrize("left", [0, 1, 23, 24, 25, FRAME - 1])
def test_a_write_that_was_interrupted_within_a_frame_is_complete(file, left):
    wal = file.with_name(f"{file.name}-wal")
    content = wal.read_bytes()
    wal.write_bytes(content + content[HEADER : HEADER + left])
    assert checked(file) == "complete"


def test_frames_of_an_earlier_log_behind_the_last_commit_count_for_nothing(tmp_path):
    connection = write(tmp_path / "file.sqlite", 8)
    connection.execute("PRAGMA wal_checkpoint(RESTART)")
    before = (tmp_path / "file.sqlite-wal").stat().st_size
    connection.execute("INSERT INTO rows VALUES ('after')")
    assert (tmp_path / "file.sqlite-wal").stat().st_size == before
    assert checked(tmp_path / "file.sqlite") == "complete"
    connection.close()


def test_a_log_in_use_was_checked_before_and_is_not_read_again(tmp_path):
    connection = write(tmp_path / "file.sqlite", 8)
    flip(tmp_path / "file.sqlite", HEADER + FRAME + 30)
    assert checked(tmp_path / "file.sqlite") == "complete"
    for part in ("", "-wal", "-shm"):
        shutil.copy(tmp_path / f"file.sqlite{part}", tmp_path / f"killed.sqlite{part}")
    assert checked(tmp_path / "killed.sqlite") == "damaged"
    connection.close()


def test_a_log_that_is_being_written_is_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_wal, "_LOCKS", tmp_path / "a system without a list of locks")
    connection = write(tmp_path / "file.sqlite", 3)
    for _ in range(20):
        connection.execute("INSERT INTO rows VALUES (zeroblob(20000))")
        assert checked(tmp_path / "file.sqlite") == "complete"
    connection.close()
