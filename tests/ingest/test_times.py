"""Event times at ingest: rows of the future, strays far ahead of their file, wrong units, files out of order."""

import json
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DamagedError, InputError, LogError
from pipeline.ingest.ingest import dry_run_ingest, ingest
from pipeline.ingest.times import LateRows, TimeLimits, TimeProfile
from pipeline.logs.open import open_log
from pipeline.process.instant import format_instant
from tests.support.world.ingest_world import ROWS, FullDisk, dead_in, events_in, make_project, write

DAY_S = 86_400
START_S = int(datetime(2020, 2, 1, tzinfo=UTC).timestamp())
NOW_S = 10**10
"""The manual clock of the project."""


def rows_at(*times_s):
    return [{**ROWS[0], "ts": at, "id": number} for number, at in enumerate(times_s)]


def minutes(count, start_s=START_S):
    return [start_s + 60 * n for n in range(count)]


def ingest_times(project, log, tmp_path, *times_s, name="f.parquet"):
    return ingest(project, log, "impressions", [write(tmp_path / name, rows_at(*times_s))])


@pytest.mark.parametrize("name", ["f.csv", "f.jsonl", "f.parquet", "f.avro"])
@pytest.mark.parametrize("place", [0, 100, 1999])
def test_one_row_dated_years_ahead_is_set_aside_and_none_is_late(project, log, tmp_path, name, place):
    times = minutes(2000)
    times[place] = START_S + 4 * 365 * DAY_S
    report = ingest_times(project, log, tmp_path, *times, name=name)
    assert (report.rows, report.bad_rows, report.late_rows) == (1999, 1, 0)
    dead = dead_in(log)[0]
    assert dead["reason"] == "time_out_of_range"
    assert dead["detail"].endswith(" s after all others of the file")
    assert max(event["at"] for event in events_in(project, log)) <= times[1998] * 1000 + 120_000


def test_several_rows_of_several_wrong_clocks_are_set_aside(project, log, tmp_path):
    times = minutes(400)
    times[3] = times[77] = START_S + 400 * DAY_S
    times[250] = START_S + 3000 * DAY_S
    times[100] = 0
    assert ingest_times(project, log, tmp_path, *times).bad_rows == 3


@pytest.mark.parametrize(
    "times",
    [
        [*minutes(400), *minutes(40, START_S + 30 * DAY_S)],  # a tenth of the file is no stray
        [*minutes(400), START_S + 30 * 3600],  # less than max_ahead_s ahead
        [START_S + 7 * DAY_S * n for n in range(50)],  # all rows are far apart
        [START_S, START_S + 1000 * DAY_S],  # which of the two is wrong?
    ],
)
def test_rows_that_may_be_right_are_kept(project, log, tmp_path, times):
    report = ingest_times(project, log, tmp_path, *times)
    assert (report.rows, report.bad_rows) == (len(times), 0)


@pytest.mark.parametrize(
    ("times", "warned"),
    [
        ([START_S, START_S + 1000 * DAY_S], True),
        ([*minutes(8), START_S + DAY_S + 1], True),
        ([*minutes(8), START_S + DAY_S], False),
        ([START_S], False),
        ([*minutes(9), START_S + 1000 * DAY_S], False),  # a stray
    ],
)
def test_few_rows_far_apart_are_kept_with_a_warning_of_first_and_last_time(project, log, tmp_path, times, warned):
    report = ingest_times(project, log, tmp_path, *times)
    found = [warning for warning in report.warnings if "fewer than 10 rows" in warning]
    assert len(found) == warned
    for warning in found:
        last = format_instant(times[-1] * 1000)
        assert warning.startswith(f"{tmp_path}/f.parquet has times from 2020-02-01T00:00:00Z to {last}, and fewer")


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60), st.integers(1, 59))
def test_the_latest_time_does_not_depend_on_the_order_of_rows_or_on_chunks(times, cut):
    def latest(*parts):
        profile = TimeProfile()
        for part in parts:
            profile.add(np.array(part, np.int64))
        return profile.latest_ms(86_400_000)

    assert latest(times) == latest(sorted(times)) == latest(times[:cut], times[cut:])
    assert sum(at > latest(times) for at in times) <= max(1, len(times) // 20)


def test_rows_of_the_future_are_appended_and_a_warning(project, log, tmp_path):
    edge = NOW_S + round(project.config.events.skew_s)
    report = ingest_times(project, log, tmp_path, *minutes(20, NOW_S - DAY_S), edge, edge + 1, 2 * edge)
    assert (report.rows, report.bad_rows, report.late_rows) == (23, 0, 0)
    assert "f.parquet has 2 rows in the future, which every reader sets aside. hint" in report.warnings[0]


def test_a_file_of_times_after_the_year_9999_is_refused_with_its_unit(project, log, tmp_path):
    with pytest.raises(InputError, match=r"has times from 1580515200000000 ms on, after .* has time_unit s, is it an"):
        ingest_times(project, log, tmp_path, *(n * 1000 for n in minutes(10)))
    assert log.end_offset("impressions", 0) == log.end_offset("dead-letters", 0) == 0


def test_seconds_under_milliseconds_are_a_warning_with_first_and_last_time(tmp_path):
    project = make_project(tmp_path, "ms")
    with closing(open_log(project)) as log:
        report = ingest_times(project, log, tmp_path, *minutes(20))
    assert report.warnings == (
        f"{tmp_path}/f.parquet has times from 1970-01-19T07:01:55.200Z to 1970-01-19T07:01:56.340Z. "
        "hint: springtide.toml has time_unit ms, is it another?",
    )


def test_files_in_the_wrong_order_are_a_warning_with_the_share_that_is_late(project, log, tmp_path):
    days = [write(tmp_path / f"{n}.parquet", rows_at(*minutes(1000, START_S + n * DAY_S))) for n in (0, 1)]
    assert dry_run_ingest(project, "impressions", days).warnings == ()
    rehearsed = dry_run_ingest(project, "impressions", days[::-1])
    report = ingest(project, log, "impressions", days[::-1])
    assert (report.rows, report.late_rows) == (2000, 1000)
    assert report == rehearsed
    assert report.warnings == (
        f"{days[0]} has times from 2020-02-01T00:00:00Z to 2020-02-01T16:39:00Z; 1000 of 1000 rows (100.0%) "
        "are more than 30 s older than a row before them and will be late. hint: ingest in the order of time, or raise "
        "events.disorder_s",
    )


def test_a_file_behind_those_of_an_earlier_ingest_is_a_warning_too(project, log, tmp_path):
    ingest_times(project, log, tmp_path, *minutes(10, START_S + DAY_S), name="second.parquet")
    assert ingest_times(project, log, tmp_path, *minutes(10), name="first.parquet").late_rows == 10


def test_a_file_that_is_not_sorted_by_time_is_a_warning(project, log, tmp_path):
    times = minutes(100)
    report = ingest_times(project, log, tmp_path, *times[::2], *times[1::2])
    assert report.late_rows == 49
    assert "49 of 100 rows (49.0%)" in report.warnings[0]


@pytest.mark.parametrize(("older_ms", "late"), [(30_000, 0), (30_001, 1)])
def test_a_row_is_late_below_the_watermark_of_its_partition(older_ms, late):
    rows = LateRows(30_000, {1: 10**9})
    limits = TimeLimits(10**12, 10**12)
    assert rows.add(0, np.array([10**6, 10**12 + 1, 10**6 - older_ms]), limits) == late
    assert rows.add(1, np.array([10**9 - older_ms]), limits) == late


def test_a_continued_ingest_has_the_limits_with_which_it_began(project, log, tmp_path):
    path = write(tmp_path / "f.parquet", rows_at(*minutes(20), START_S + 100 * DAY_S))
    with pytest.raises(LogError):
        ingest(project, FullDisk(log, 1), "impressions", [path])
    # With these settings no row is a stray.
    patient = make_project(tmp_path, max_ahead_s="off")
    assert ingest(patient, log, "impressions", [path]).bad_rows == 1
    assert len(dead_in(log)) == 1


def test_a_changed_ledger_entry_is_refused(project, log, tmp_path):
    path = write(tmp_path / "f.csv", ROWS)
    ingest(project, log, "impressions", [path])
    entry = next((project.state / "ingest").iterdir())
    content = entry.read_bytes()
    for changed in (
        content.replace(b'"rows": 3', b'"rows": 2'),
        content[:-9],
        b"",
        b"[]",
        content.replace(b"crc32", b"crc33"),
    ):
        entry.write_bytes(changed)
        with pytest.raises(DamagedError, match="is not an entry of the ingest ledger"):
            ingest(project, log, "impressions", [path])


def test_a_complete_entry_of_an_earlier_release_counts_and_an_interrupted_one_is_refused(project, log, tmp_path):
    path = write(tmp_path / "f.csv", ROWS)
    ingest(project, log, "impressions", [path])
    entry_path = next((project.state / "ingest").iterdir())
    entry = json.loads(entry_path.read_bytes())["entry"]
    for name in ("limits", "last_ms"):
        del entry[name]
    entry_path.write_text(json.dumps(entry))
    assert ingest(project, log, "impressions", [path]).skipped_files == (str(path),)
    entry_path.write_text(json.dumps({**entry, "done": False}))
    assert ingest(project, log, "impressions", [write(tmp_path / "g.csv", ROWS[:1])]).rows == 1
    with pytest.raises(InputError, match=r"another release began, in version None, wanted 2\. hint"):
        ingest(project, log, "impressions", [path])
