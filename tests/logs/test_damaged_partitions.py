"""A partition file that is not as it was written: a flipped bit is harmless or named, and so is every other change."""

import random
import shutil
import sqlite3
from contextlib import suppress

import pytest

from pipeline.errors import DamagedError, LogError, SpringtideError
from pipeline.formats.sqlite_file import row_checksum
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from tests.support.manual_clock import ManualClock

FLIPS = 120


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of logs: topic t with two partitions, the first trimmed, with large, small and headed records."""
    folder = tmp_path_factory.mktemp("logs")
    log = SqliteLog(folder, ManualClock(1_000))
    log.create_topic("t", 2)
    values = random.Random(5)
    for n in range(12):
        log.append("t", 0, [values.randbytes(n * 1_500), b"small"], headers={"n": str(n)} if n % 2 else None)
    log.append("t", 1, [b"other"])
    log.trim("t", 0, 5)
    log.acquire_fence("t", 0)
    log.close()
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "logs")


def contents(folder):
    """Everything that readers and writers of partition 0 get."""
    log = SqliteLog(folder, ManualClock(2_000))
    try:
        records = [record for part in read_to_end(log, "t", 0) for record in part]
        found = [log.partitions("t"), log.log_id("t"), log.begin_offset("t", 0), log.end_offset("t", 0), records]
        found += [log.offset_at("t", 0, 1_000), log.offset_at("t", 0, 1_001)]
        fence = log.acquire_fence("t", 0)
        first = log.append("t", 0, [b"new"], fence=fence)
        return [*found, fence.epoch, first, [r.value for part in read_to_end(log, "t", 0, first) for r in part]]
    finally:
        log.close()


def test_no_flipped_bit_is_read_as_something_else(written, tmp_path):
    wanted = contents(shutil.copytree(written, tmp_path / "wanted"))
    places, named = random.Random(11), 0
    files = [path.relative_to(written) for path in sorted(written.rglob("*")) if path.is_file()]
    for trial in range(FLIPS):
        folder = shutil.copytree(written, tmp_path / str(trial))
        file = folder / places.choice(files)
        content = bytearray(file.read_bytes())
        at, bit = places.randrange(len(content)), places.randrange(8)
        content[at] ^= 1 << bit
        file.write_bytes(content)
        try:
            assert contents(folder) == wanted, (file.name, at, bit)
        except SpringtideError as failure:
            named += "t/0" in str(failure) or str(folder) in str(failure)
        shutil.rmtree(folder)
    assert named > FLIPS // 4


def test_no_flipped_bit_in_the_row_of_a_partition_is_believed(written, tmp_path):
    wanted = contents(shutil.copytree(written, tmp_path / "wanted"))
    content = (written / "t" / "0.sqlite").read_bytes()
    row = content.index(wanted[1].encode())
    for at in range(row - 12, row + 50):
        for bit in (0, 6):
            folder = shutil.copytree(written, tmp_path / f"{at}-{bit}")
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            (folder / "t" / "0.sqlite").write_bytes(damaged)
            with suppress(DamagedError, LogError):
                assert contents(folder) == wanted, (at - row, bit)
            shutil.rmtree(folder)


def edit(folder, statement, *parameters):
    connection = sqlite3.connect(folder / "t" / "0.sqlite")
    connection.execute(statement, parameters)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("column", ["epoch", "begin_offset", "end_offset", "last_appended_at_ms", "number"])
def test_an_edited_row_of_a_partition_is_named(folder, column):
    edit(folder, f"UPDATE partition SET {column} = {column} + 1")
    with pytest.raises(
        DamagedError, match=r"the row of partition t/0 does not match its checksum: .*restore .*0\.sqlite"
    ):
        contents(folder)


def test_an_end_that_the_records_contradict_is_named(folder):
    connection = sqlite3.connect(folder / "t" / "0.sqlite")
    (*row, _) = connection.execute("SELECT * FROM partition").fetchone()
    connection.close()
    row[4] = 20
    edit(folder, "UPDATE partition SET end_offset = 20, checksum = ?", row_checksum("partition", *row))
    with pytest.raises(DamagedError, match=r"t/0 has records 5\.\.23, its row says 5\.\.19"):
        contents(folder)


@pytest.mark.parametrize("offset", [7, 8, 22])
def test_a_missing_record_is_named(folder, offset):
    edit(folder, "DELETE FROM records WHERE offset = ?", offset)
    with pytest.raises(DamagedError, match=f"record t/0/{offset} is missing, the next one found is {offset + 1}"):
        contents(folder)


def test_a_missing_last_record_is_named(folder):
    edit(folder, "DELETE FROM records WHERE offset = 23")
    with pytest.raises(DamagedError, match=r"t/0 has records 5\.\.22, its row says 5\.\.23"):
        contents(folder)


@pytest.mark.parametrize("count", [0, 2])
def test_a_partition_without_one_row_is_named(folder, count):
    edit(folder, "DELETE FROM partition" if count == 0 else "INSERT INTO partition SELECT * FROM partition")
    with pytest.raises(DamagedError, match=f"partition t/0 has {count} rows in its table partition, wanted 1"):
        contents(folder)


def test_partitions_in_each_others_place_are_named(folder):
    first, second = folder / "t" / "0.sqlite", folder / "t" / "1.sqlite"
    first.rename(folder / "kept")
    second.rename(first)
    with pytest.raises(DamagedError, match=r"0\.sqlite is of log \w+ and partition 1, .* of partition 0"):
        contents(folder)


def test_topics_in_each_others_place_are_named(folder):
    (folder / "t").rename(folder / "u")
    log = SqliteLog(folder, ManualClock())
    with pytest.raises(DamagedError, match="it is of topic t, its folder is u"):
        log.partitions("u")
    log.close()


@pytest.mark.parametrize("left", [0, 1, 100, 16_384, 40_000])
def test_a_partition_cut_at_any_length_is_named(folder, left):
    path = folder / "t" / "0.sqlite"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises((DamagedError, LogError), match="t/0"):
        contents(folder)


@pytest.mark.parametrize("left", [0, 1, 40])
def test_a_topic_file_cut_at_any_length_is_named(folder, left):
    path = folder / "t" / "topic.json"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DamagedError, match=r"topic\.json is damaged"):
        contents(folder)


@pytest.mark.parametrize("name", ["topic.json", "0.sqlite"])
def test_a_folder_in_place_of_a_file_is_named(folder, name):
    (folder / "t" / name).unlink()
    (folder / "t" / name).mkdir()
    with pytest.raises(SpringtideError, match=r"t/0|topic\.json"):
        contents(folder)


def test_a_definition_that_is_no_utf8_is_named(folder):
    path = folder / "t" / "0.sqlite"
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE records", b"CREATE TABLE recor\xe4s", 1))
    with pytest.raises(DamagedError, match="partition t/0 is damaged"):
        contents(folder)


def test_a_partition_of_the_release_before_is_refused(folder):
    edit(folder, "PRAGMA user_version=0")
    with pytest.raises(DamagedError, match=r"0\.sqlite has format 0, wanted 4\. hint: use the release that wrote it"):
        contents(folder)


def test_a_flipped_bit_in_what_a_kill_left_beside_a_partition_is_named(tmp_path):
    alive = SqliteLog(tmp_path / "alive", ManualClock(1_000))
    alive.create_topic("t", 1)
    for number in range(4):
        alive.append("t", 0, [b"%d" % number])
    killed = shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    alive.close()
    wal = killed / "t" / "0.sqlite-wal"
    content = bytearray(wal.read_bytes())
    content[32 + 24] ^= 1
    wal.write_bytes(content)
    with pytest.raises(DamagedError, match=r"0\.sqlite-wal is damaged: frame 0 "):
        SqliteLog(killed, ManualClock(2_000)).read("t", 0, 0)
