"""External faults, seen from the command line: a clear error with its object and remedy, and no data loss.

Elsewhere: truncated, wrong-typed and column-less files in test_ingest; unknown configuration keys and a damaged version
in test_cli; model outputs of the wrong shape in test_model; a loss that is no number in test_trainer; a full disk under
one log, one version or the ledger in test_sqlite_log, test_versions and test_ledger; damaged deltas and manifests in
test_delta, test_levels and test_replica; a writer paused inside a commit in test_versions; odd times in test_events.
"""

import os
import resource
import shutil
import signal
import time
from contextlib import closing

import pandas as pd
import pytest

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.command_line import (
    START_MS,
    call,
    feed,
    make_events,
    make_shop,
    samples_of,
    springtide,
    start,
)

ROWS = 300
LATER = 40_000
TIMEOUT_S = 90


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    """Events of a day, ingested."""
    project = make_shop(tmp_path_factory.mktemp("bad") / "shop", {"# full_every_s = 86_400": "full_every_s = 1e9"})
    feed(project, make_events(1, ROWS), close=False)
    springtide(project, "heartbeat", START_MS + LATER * 10_000 - 1)
    return project


@pytest.fixture(scope="module")
def calm(fed):
    """The same project, joined and trained."""
    project = shutil.copytree(fed, fed.parent / "calm")
    springtide(project, "run", "all", "--until-end")
    return project


@pytest.fixture
def shop(fed, tmp_path):
    return shutil.copytree(fed, tmp_path / "shop")


@pytest.fixture
def learned(calm, tmp_path):
    return shutil.copytree(calm, tmp_path / "shop")


def assert_one_line(done, code, *parts):
    assert done.code == code, done
    assert len(done.err.splitlines()) == 1
    assert all(part in done.err for part in parts), done.err


@pytest.fixture
def no_larger_file():
    """Limits the size of files until the test ends: writes beyond it fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("command", "limit"), [("samples", 8_192), ("samples", 100), ("train", 8_192), ("train", 100)])
def test_a_full_disk_loses_nothing(shop, calm, no_larger_file, command, limit):
    if command == "train":
        springtide(shop, "run", "samples", "--until-end")
    no_larger_file(limit)
    done = call("run", command, "--until-end", "--project", shop)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert done.code in (4, 11), done
    assert len(done.err.splitlines()) == 1
    assert {"samples": "partition samples/0", "train": "partition ledger/0"}[command] in done.err
    assert "hint: " in done.err
    springtide(shop, "run", "all", "--until-end")
    pd.testing.assert_frame_equal(samples_of(shop), samples_of(calm))
    assert current(shop)["digest"] == current(calm)["digest"]


def test_a_full_disk_under_published_files_is_reported_and_publishing_again_works(learned, no_larger_file):
    feed(learned, make_events(1, ROWS, first=LATER), "more")
    springtide(learned, "run", "all", "--until-end")
    springtide(learned, "publish", "--level", "full")  # now every row is sent, and only the file is missing
    shutil.rmtree(learned / "state" / "published")
    # As beside a running trainer, the ledger is open: SQLite creates no file of its own then.
    with closing(VersionStore(Project.open(learned))) as store:
        assert store.current(0)
        no_larger_file(100)
        done = call("publish", "--level", "full", "--project", learned)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert_one_line(done, 11, str(learned / "state" / "published"), "File too large", "hint: make room on its disk")
    springtide(learned, "publish", "--level", "full")
    assert springtide(learned, "status")["trainer"][0]["published"]["full"] == current(learned)["version"]


def current(project):
    [found] = [version for version in springtide(project, "versions")["versions"] if version["current"]]
    return found


@pytest.mark.parametrize("name", ["ROUND.json", "*.join"])
def test_a_damaged_join_state_is_named_and_can_be_deleted(learned, calm, name):
    [path] = (learned / "state" / "samples").glob(name)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert_one_line(call("run", "samples", "--until-end", "--project", learned), 6, str(path), "hint: delete ")
    shutil.rmtree(path.parent)
    springtide(learned, "run", "samples", "--until-end")
    pd.testing.assert_frame_equal(samples_of(learned), samples_of(calm))


@pytest.mark.parametrize("topic", ["impressions", "clicks", "samples"])
def test_a_topic_that_was_deleted_and_recreated_is_refused_whatever_its_length(learned, topic):
    opened = Project.open(learned)
    log = open_log(opened)
    log.delete_topic(topic)
    log.create_topic(topic, 1)
    feed(learned, make_events(7, 50, first=2 * LATER), "other", close=False)
    done = call("run", "all", "--until-end", "--project", learned)
    assert_one_line(done, 4, f"topic {topic}", "hint: ")
    assert call("run", "all", "--until-end", "--project", learned, "--json").result["kind"] == "LogReplacedError"


def test_times_before_1970_and_in_the_future_become_dead_letters_and_move_no_watermark(learned, calm):
    impressions, clicks = make_events(5, 60, first=LATER)
    odd = impressions.iloc[:2].assign(at=[-1, START_MS * 3], impression_id=["old", "new"])
    for kind, rows in (("impressions", pd.concat([odd, impressions])), ("clicks", clicks)):
        rows.to_csv(learned / f"{kind}.csv", index=False)
        assert springtide(learned, "ingest", kind, learned / f"{kind}.csv")["rows"] == len(rows)
    springtide(learned, "heartbeat", int(impressions["at"].max()) + 86_400_000)
    joined = springtide(learned, "run", "all", "--until-end")["samples"]
    assert joined["dead_letters"]["time_out_of_range"] == 2
    assert "impression_too_late" not in joined["dead_letters"]
    samples = samples_of(learned)
    assert set(impressions["impression_id"]) <= set(samples["impression_id"])
    assert not {"old", "new"} & set(samples["impression_id"])
    springtide(learned, "export", "dead-letters", "--out", learned / "dead.parquet")
    dead = pd.read_parquet(learned / "dead.parquet")
    kept = dead[dead["reason"] == "time_out_of_range"]
    assert sorted(kept["detail"].str.contains("1970")) == [False, True]
    assert all(any(name in original for name in (b"old", b"new")) for original in kept["original"])


def until(found, process):
    began_at_s = time.monotonic()
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began_at_s < TIMEOUT_S
        time.sleep(0.05)


def caught_up(project):
    trainer = springtide(project, "status")["trainer"][0]
    return trainer["version"] is not None and trainer["lag_records"] == 0


def test_a_suspended_trainer_that_continues_after_a_second_one_ends_and_changes_nothing(shop, calm):
    first = start(shop, "run", "all")
    try:
        until(
            lambda: all(caught_up(shop) for _ in range(5)), first
        )  # stopped inside a transaction it would hold the lock
        os.kill(first.pid, signal.SIGSTOP)
        feed(shop, make_events(1, ROWS, first=LATER), "more")
        springtide(shop, "run", "all", "--until-end")
        versions, samples = springtide(shop, "versions"), samples_of(shop)
        os.kill(first.pid, signal.SIGCONT)
        feed(shop, make_events(1, ROWS, first=2 * LATER), "last")
        _, err = first.communicate(timeout=TIMEOUT_S)
    finally:
        first.kill()
    assert first.returncode == 5, err
    following, error = err.splitlines()
    assert following == "following the logs; press Ctrl-C to stop"
    assert error.startswith("error: ")
    assert springtide(shop, "versions") == versions
    pd.testing.assert_frame_equal(samples_of(shop), samples)
    assert springtide(shop, "run", "all", "--until-end")["train"]["samples"] > ROWS
