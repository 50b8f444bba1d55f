"""The Avro archive, and opening the embedded log and a backfill."""

import json
import os
from pathlib import Path

import fastavro
import pytest

from pipeline.configuration.config import Config, parse_config
from pipeline.configuration.project import Project
from pipeline.errors import ConfigError, DamagedError, LogError, LogReplacedError
from pipeline.formats.schemas import load_schema
from pipeline.logs.archive.archive_log import ArchiveLog
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.interface.topic_specs import partition_counts
from pipeline.logs.open import open_log
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from tests.support.manual_clock import ManualClock
from tests.support.world.archive_writer import write_archive

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


@pytest.fixture
def folder(log, tmp_path) -> Path:
    log.append("t", 0, [b"a", b"b", b"c"])
    assert write_archive(log, "t", tmp_path / "archive", ReadLimits(records=2)) == 3
    return tmp_path / "archive"


def test_files_are_named_by_their_first_offset(folder):
    names = sorted(path.name for path in (folder / "t" / "0").iterdir())
    assert names == ["00000000000000000000.avro", "00000000000000000002.avro"]


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.append("t", 0, [b"a"]),
        lambda log: log.create_topic("u", 1),
        lambda log: log.delete_topic("t"),
        lambda log: log.acquire_fence("t", 0),
        lambda log: log.trim("t", 0, 1),
    ],
)
def test_every_change_is_refused(folder, change):
    with pytest.raises(LogError, match="read only"):
        change(ArchiveLog(folder))


def test_a_second_archiving_adds_only_new_records(folder, log):
    reader = ArchiveLog(folder)
    assert reader.end_offset("t", 0) == 3
    log.append("t", 0, [b"d"])
    log.append("t", 1, [b"e"])
    assert write_archive(log, "t", folder) == 2
    assert write_archive(log, "t", folder) == 0
    assert [r.value for r in reader.read("t", 0, 0)] == [b"a", b"b", b"c", b"d"]


def test_a_topic_that_was_created_again_is_refused(folder, log):
    log.delete_topic("t")
    log.create_topic("t", 2)
    with pytest.raises(LogReplacedError, match=r"archive .* is of log"):
        write_archive(log, "t", folder)


def test_a_file_that_the_contents_do_not_list_is_ignored(folder, log):
    contents = folder / "t" / "topic.json"
    before = contents.read_bytes()
    log.append("t", 0, [b"d"])
    write_archive(log, "t", folder)
    contents.write_bytes(before)  # as after a crash before the last step
    assert ArchiveLog(folder).end_offset("t", 0) == 3
    assert len(ArchiveLog(folder).read("t", 0, 0)) == 3
    assert write_archive(log, "t", folder) == 1
    assert [r.value for r in ArchiveLog(folder).read("t", 0, 0)] == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize("share", [0.3, 0.9, 0.0])
def test_a_truncated_file_is_named(folder, share):
    path = folder / "t" / "0" / f"{0:020}.avro"
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(DamagedError, match=r"0000\.avro"):
        ArchiveLog(folder).read("t", 0, 0)


def test_a_missing_file_is_named(folder):
    (folder / "t" / "0" / f"{2:020}.avro").unlink()
    with pytest.raises(DamagedError, match=r"0002\.avro"):
        ArchiveLog(folder).read("t", 0, 0)


def test_a_flipped_byte_is_reported_as_damage(folder, log, tmp_path):
    log.append("t", 1, [b"the value that rots"])
    write_archive(log, "t", folder)
    path = folder / "t" / "1" / f"{0:020}.avro"
    path.write_bytes(path.read_bytes().replace(b"rots", b"rotz"))
    with pytest.raises(DamagedError, match=r"record 0 of .* checksum"):
        ArchiveLog(folder).read("t", 1, 0)


def test_keys_are_archived_and_files_of_releases_without_keys_are_read(log, tmp_path):
    log.append("t", 0, [b"a", b"b"], keys=[b"first", b"second"])
    folder = tmp_path / "archive"
    write_archive(log, "t", folder)
    assert ArchiveLog(folder).read("t", 0, 0) == log.read("t", 0, 0)
    log.append("t", 1, [b"without a key"])
    write_archive(log, "t", folder)
    [path] = (folder / "t" / "1").iterdir()
    with path.open("rb") as file:
        rows = [{name: value for name, value in row.items() if name != "key"} for row in fastavro.reader(file)]
    schema = json.loads(json.dumps(load_schema("archive_record").document))
    schema["fields"] = [each for each in schema["fields"] if each["name"] != "key"]
    with path.open("wb") as file:
        fastavro.writer(file, schema, rows)
    [record] = ArchiveLog(folder).read("t", 1, 0)
    assert (record.value, record.key) == (b"without a key", None)


def config(**logs) -> Config:
    columns = {"columns": {"id": "string", "user": "string"}}
    events = {"key": ["id"], "impressions": columns, "clicks": columns}
    return parse_config({"events": events, "fields": [{"name": "user", "columns": ["user"]}], "logs": logs})


def test_open_log_creates_every_topic_with_its_partitions(tmp_path, clock):
    project = Project(tmp_path, config(partitions=3, shards=2), clock)
    log = open_log(project)
    assert {t: log.partitions(t) for t in log.topics()} == partition_counts(project.config)
    assert partition_counts(project.config) == {
        "impressions": 3, "clicks": 3, "samples": 2, "dead-letters": 2, "deltas": 2, "ledger": 3, "notices": 1,
        "schemas": 1,
    }  # fmt: skip


def test_open_log_again_finds_the_same_topics(tmp_path, clock):
    project = Project(tmp_path, config(), clock)
    before = {t: open_log(project).log_id(t) for t in open_log(project).topics()}
    assert {t: open_log(project).log_id(t) for t in open_log(project).topics()} == before


def test_open_log_refuses_another_number_of_shards(tmp_path, clock):
    open_log(Project(tmp_path, config(shards=1), clock))
    with pytest.raises(LogError, match="topic samples has 1 partitions, 2 are wanted"):
        open_log(Project(tmp_path, config(shards=2), clock))


def test_a_backfill_reads_the_archive_and_writes_its_own_topics(tmp_path, clock):
    live = open_log(Project(tmp_path / "live", config(), clock))
    live.append("impressions", 0, [b"i"])
    live.append("clicks", 0, [b"c"])
    live.append("samples", 0, [b"s"])
    for topic in ("impressions", "clicks", "schemas"):
        write_archive(live, topic, tmp_path / "again" / "archive")
    backfill = open_log(Project(tmp_path / "again", config(engine="archive", path="archive"), clock))
    assert backfill.topics() == live.topics()
    assert backfill.log_id("clicks") == live.log_id("clicks")
    assert [r.value for r in backfill.read("clicks", 0, 0)] == [b"c"]
    assert backfill.append("samples", 0, [b"s"], fence=backfill.acquire_fence("samples", 0)) == 0
    with pytest.raises(LogError, match="read only"):
        backfill.append("clicks", 0, [b"c"])


def test_a_backfill_requires_the_archives_folder_and_partitions(tmp_path, clock):
    with pytest.raises(ConfigError, match=r"logs\.path"):
        open_log(Project(tmp_path, config(engine="archive"), clock))
    live = open_log(Project(tmp_path / "live", config(), clock))
    for topic in ("impressions", "clicks"):
        write_archive(live, topic, tmp_path / "archive")
    with pytest.raises(LogError, match=r"topic impressions has 1 partitions in archive .* logs.partitions is 2"):
        open_log(Project(tmp_path, config(engine="archive", path="archive", partitions=2), clock))
