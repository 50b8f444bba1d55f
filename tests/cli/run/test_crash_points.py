"""Every named crash point, reached through the command line: after one more run, the same samples and the same model.

The processes of several points run beside each other; most of their time goes into starting.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipeline.configuration.project import Project
from pipeline.ingest.replay import DEAD_LETTER_HEADER
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log
from pipeline.process.crash_point import POINTS, arm_crash_point
from pipeline.publish.hooks.notices import VERSION_PUBLISHED
from tests.support.command.command_line import START_MS, feed, make_events, make_shop, samples_of, springtide, start
from tests.support.world.recovered import SEVERAL_COMMITS, assert_served_is_current, current, trained_anew

ROWS = 400
SECOND = 40_000
JOBS = ("samples.", "trainer.")


@pytest.fixture(scope="module")
def fed(tmp_path_factory) -> Path:
    """Two batches of events ingested, in several records; nothing joined."""
    project = make_shop(tmp_path_factory.mktemp("crash") / "fed", SEVERAL_COMMITS)
    for first in (0, ROWS):
        feed(project, make_events(1, ROWS, first), f"from-{first}", close=False)
    springtide(project, "heartbeat", START_MS + SECOND * 10_000 - 1)
    (project / "users.txt").write_text("u1\nu2\n")
    return project


@pytest.fixture(scope="module")
def learned(fed) -> Path:
    """The same, joined and trained without a crash."""
    project = shutil.copytree(fed, fed.parent / "learned")
    springtide(project, "run", "all", "--until-end")
    return project


@pytest.fixture(scope="module")
def later(learned) -> Path:
    """The trained project with further events that a rollback undoes."""
    project = shutil.copytree(learned, learned.parent / "later")
    feed(project, make_events(2, ROWS, SECOND), "second")
    springtide(project, "run", "all", "--until-end")
    return project


def words_of(point: str, project: Path) -> list[str]:
    """A command that passes the point."""
    part = point.split(".")[0]
    rollback = ["rollback", "--before", str(START_MS + SECOND * 10_000)]
    publish = ["publish", "--level", "full"]
    replay = ["dead-letters", "replay"]
    keys = ["quarantine", "add", "--keys", "user", str(project / "users.txt")]
    return {"publish": publish, "rollback": rollback, "replay": replay, "quarantine": keys}.get(part) or [
        "run",
        "samples" if part == "samples" else "all",
        "--until-end",
    ]


@pytest.fixture(scope="module")
def crashed(fed, later) -> dict[str, Path]:
    """By crash point, a project whose process was killed there."""
    ended = {}
    for few in [POINTS[i : i + 3] for i in range(0, len(POINTS), 3)]:
        running = {}
        for point in few:
            early = point.startswith((*JOBS, "compaction."))
            project = shutil.copytree(fed if early else later, fed.parent / point)
            words, crash_at = words_of(point, project), f"{point}:2" if point.startswith(JOBS) else point
            running[point] = project, start(project, *words, crash_at=crash_at)
        for point, (project, process) in running.items():
            output = process.communicate(timeout=120)
            assert process.returncode == -signal.SIGKILL, (point, output)
            ended[point] = project
    return ended


def test_every_crash_point_is_reached(crashed):
    assert list(crashed) == list(POINTS)


STOPS = """
from pipeline.process.crash_point import arm_crash_point, reach_crash_point
arm_crash_point("samples.before_append:2:stop")
for passed in range(3):
    reach_crash_point("samples.before_append")
    print(passed, flush=True)
"""


def test_a_crash_point_may_suspend_the_process_from_the_nth_pass_on():
    child = subprocess.Popen([sys.executable, "-c", STOPS], stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status
        os.kill(child.pid, signal.SIGCONT)
    assert child.communicate() == ("0\n1\n2\n", None)
    assert child.returncode == 0


@pytest.mark.parametrize("point", ["samples.nowhere", "samples.before_append:1:sleep"])
def test_an_unknown_crash_point_or_action_is_refused(point):
    with pytest.raises(ValueError, match="crash point"):
        arm_crash_point(point)


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith(JOBS)])
def test_a_crash_of_the_jobs_changes_neither_samples_nor_model(crashed, learned, tmp_path, point):
    project = crashed[point]
    before = springtide(project, "versions")["versions"]
    committed = {"before_commit": 1, "after_commit": 2, "after_delta": 2, "after_publish": 2}
    assert len(before) == committed.get(point.removeprefix("trainer."), 0)
    springtide(project, "run", "all", "--until-end")
    by_position = ["impression_offset", "impression_row", "kind"]
    pd.testing.assert_frame_equal(
        samples_of(project).sort_values(by_position, ignore_index=True),
        samples_of(learned).sort_values(by_position, ignore_index=True),
    )
    assert current(project)["digest"] == current(trained_anew(project, tmp_path / "anew"))["digest"]
    assert_served_is_current(project)
    assert_every_version_was_announced(project)


@pytest.mark.parametrize("point", ["publish.after_files", "publish.after_notice"])
def test_a_crash_before_a_full_is_recorded_is_repaired_by_publishing_again(crashed, point):
    project = crashed[point]
    status = springtide(project, "status")["trainer"][0]
    assert status["published"]["full"] != status["version"]
    springtide(project, "publish", "--level", "full")
    status = springtide(project, "status")["trainer"][0]
    assert status["published"]["full"] == status["version"]
    assert f"{status['version']}/full" in announced(project)
    assert_served_is_current(project)


@pytest.mark.parametrize("point", ["rollback.after_plan", "rollback.after_delta"])
def test_a_crash_inside_a_rollback_is_finished_on_request(crashed, learned, point):
    project, target = crashed[point], current(learned)
    [done] = springtide(project, "rollback", "--finish")["finished"]
    assert done["shards"][0]["target"] == target["version"]
    assert current(project)["served_digest"] == target["served_digest"]
    assert springtide(project, "rollback", "--finish")["finished"] == []
    assert_served_is_current(project)
    assert springtide(project, "run", "all", "--until-end")["train"]["samples"] == 0


def test_a_crash_after_keys_are_stored_leaves_no_quarantine_and_a_second_attempt_adds_one(crashed):
    project = crashed["quarantine.after_keys"]
    [stored] = (project / "state" / "versions" / "quarantine").iterdir()
    assert springtide(project, "quarantine", "list")["quarantines"] == []
    added = springtide(project, *words_of("quarantine", project))
    [row] = springtide(project, "quarantine", "list")["quarantines"]
    assert (row["id"], f"{row['keys']['digest']}.keys") == (added["id"], stored.name)
    assert added["skipped"]["samples"] == added["skipped"]["learned"] > 0


def test_a_crash_inside_a_replay_appends_no_letter_twice(crashed):
    project = crashed["replay.after_append"]
    letters = sum(found["letters"] for found in springtide(project, "dead-letters", "list")["dead_letters"])
    done = springtide(project, "dead-letters", "replay")
    assert letters == done["replayed_before"] > 0 == done["replayed"]
    opened = Project.open(project)
    log = open_log(opened)
    names = [
        r.headers[DEAD_LETTER_HEADER]
        for run in read_to_end(log, "clicks", 0)
        for r in run
        if DEAD_LETTER_HEADER in r.headers
    ]
    assert len(names) == len(set(names)) == letters


def announced(project: Path) -> list[str]:
    """The subjects of publication notices, in order."""
    notices = [json.loads(r.value) for run in read_to_end(open_log(Project.open(project)), "notices", 0) for r in run]
    return [notice["subject"] for notice in notices if notice["type"] == VERSION_PUBLISHED]


def assert_every_version_was_announced(project: Path) -> None:
    """Every realtime delta in order; the one at which the trainer was killed may occur twice."""
    realtime = [subject for subject in announced(project) if subject.endswith("/realtime")]
    versions = [f"{version['version']}/realtime" for version in springtide(project, "versions")["versions"]]
    assert list(dict.fromkeys(realtime)) == versions
    assert len(realtime) <= len(versions) + 1
