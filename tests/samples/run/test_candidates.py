"""Candidates that were not shown, from files to the samples log: ingest, dead letters, restarts, lost state."""

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.environment import crash_point_from_environment
from pipeline.configuration.project import Project
from pipeline.errors import MigrationError
from pipeline.ingest.event_writer import append_heartbeat
from pipeline.ingest.ingest import ingest
from pipeline.logs.events.dead_letters import read_dead_letters
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.open import open_log
from pipeline.process.crash_point import arm_crash_point
from pipeline.samples.run.in_process import run_samples
from pipeline.samples.run.status import join_status
from tests.support.manual_clock import ManualClock

NOW = 1_700_000_000_000
COLUMNS = {"request": "int", "item": "int"}
DOCUMENT = {
    "logs": {"partitions": 2, "shards": 2},
    "events": {
        "key": ["request", "item"],
        "partition_by": ["request"],
        "disorder_s": 1.0,
        "impressions": {"columns": COLUMNS},
        "clicks": {"columns": COLUMNS},
        "candidates": {"columns": COLUMNS | {"fine": "float"}, "score": "fine", "topic": "shop.unshown"},
    },
    "samples": {"policy": "close", "window_s": 10.0, "horizon_s": 20.0, "key_retention_s": 5.0},
    "labels": [
        {"name": "label"},
        {"name": "coarse", "target": "label", "teacher": "label", "candidates": True}
        | {"list_column": "request", "listwise": 1.0},
    ],
    "fields": [{"name": "item", "columns": ["item"]}],
}
REQUESTS = 6


def project_of(root, document=DOCUMENT):
    root.mkdir(exist_ok=True)
    return Project(root, parse_config(document), ManualClock(NOW + 10**7))


def append(project, log, kind, header, *rows):
    path = project.root / f"{kind}-{len(list(project.root.glob('*.csv')))}.csv"
    path.write_text(f"at,{header}\n" + "".join(f"{NOW + 1000 * at},{','.join(map(str, row))}\n" for at, *row in rows))
    return ingest(project, log, kind, [path])


def fill(project, log):
    """Requests every two seconds with two impressions and three candidates each; the last candidate of one is unfit."""
    shown = [(2 * request, request, item) for request in range(REQUESTS) for item in (0, 1)]
    append(project, log, "impressions", "request,item", *shown)
    append(project, log, "clicks", "request,item", (3, 1, 0), (5, 2, 1))
    scores = {10: 0.25, 11: 0.5}
    rows = [(2 * request, request, item, score) for request in range(REQUESTS) for item, score in scores.items()]
    rows += [(2 * request, request, 12, score) for request, score in enumerate([0.75, 1.5, -0.1, "", 1.0, 0.0])]
    rows.sort(key=lambda row: row[:3])
    assert append(project, log, "candidates", "request,item,fine", *rows).bad_rows == 0


def samples_in(project, log):
    """By shard, (request, item, kind, score) in the order of the log."""
    return [
        [
            (row["request"], row["item"], row["kind"], row["candidate_score"])
            for record in log.read("samples", shard, 0)
            for row in decode_sample_block(record.value).batch.to_pylist()
        ]
        for shard in range(2)
    ]


def dead_in(log):
    letters = [read_dead_letters(log.read("dead-letters", shard, 0)).table.to_pylist() for shard in range(2)]
    return sorted((each["reason"], each["topic"], each["row"]) for found in letters for each in found)


def complete(project, log):
    append_heartbeat(project, log, NOW + 100_000)
    run_samples(project, log, until_end=True)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What one run over complete logs emits."""
    project = project_of(tmp_path_factory.mktemp("at-once"))
    log = open_log(project)
    fill(project, log)
    complete(project, log)
    return samples_in(project, log), dead_in(log), project, log


def test_the_candidates_and_impressions_of_a_request_leave_together_as_one_list(wanted):
    for rows in wanted[0]:
        requests = [request for request, *_ in rows]
        assert requests == sorted(requests)
    found = {row for rows in wanted[0] for row in rows}
    assert {row for row in found if row[0] == 0} == {
        (0, 0, "negative", None),
        (0, 1, "negative", None),
        (0, 10, "candidate", 0.25),
        (0, 11, "candidate", 0.5),
        (0, 12, "candidate", 0.75),
    }
    assert {(request, item) for request, item, kind, _ in found if kind == "positive"} == {(1, 0), (2, 1)}
    assert sum(kind == "candidate" for _, _, kind, _ in found) == 3 * REQUESTS - 3


def test_a_score_that_is_no_probability_is_a_dead_letter_with_its_place_and_bytes(wanted):
    assert [reason for reason, *_ in wanted[1]] == ["score_out_of_range"] * 3
    log = wanted[3]
    letters = [read_dead_letters(log.read("dead-letters", shard, 0)).table.to_pylist() for shard in range(2)]
    originals = {letter["original"] for found in letters for letter in found}
    assert any(b'"fine":1.5' in each.replace(b" ", b"") for each in originals)
    assert {letter["topic"] for found in letters for letter in found} == {"shop.unshown"}
    status = join_status(wanted[2], log)
    assert (status["inputs"]["shop.unshown/0"]["lag"], status["waiting_candidates"]) == (0, 0)


def test_candidates_whose_window_is_open_wait(tmp_path):
    project = project_of(tmp_path)
    log = open_log(project)
    fill(project, log)
    run_samples(project, log, until_end=True)
    assert join_status(project, log)["waiting_candidates"] == 3 * REQUESTS - 3
    assert samples_in(project, log) == [[], []]


@pytest.mark.parametrize("lost", [False, True])
def test_restarts_with_and_without_the_state_emit_what_one_run_emits(tmp_path, wanted, lost):
    project = project_of(tmp_path / "live")
    log = open_log(project)
    fill(project, log)
    for at in (3, 11, 13, 14, 19):
        append_heartbeat(project, log, NOW + 1000 * at)
        run_samples(project, log, until_end=True)
        if lost:
            for path in project.join_state.iterdir():
                path.unlink()
    complete(project, log)
    assert samples_in(project, log) == wanted[0]
    assert dead_in(log) == wanted[1]


@pytest.mark.parametrize("point", ["samples.before_append", "samples.after_append"])
def test_a_job_that_is_killed_beside_an_append_emits_the_rest_once(tmp_path, wanted, point):
    project = project_of(tmp_path)
    log = open_log(project)
    fill(project, log)
    append_heartbeat(project, log, NOW + 14_000)
    log.close()
    killed = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "SPRINGTIDE_CRASH_AT": point},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    log = open_log(project)
    complete(project, log)
    assert samples_in(project, log) == wanted[0]
    assert dead_in(log) == wanted[1]


def test_a_state_from_before_candidates_were_logged_is_refused_and_begins_from_the_logs(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    logged = document["events"].pop("candidates")
    del document["labels"][1]["candidates"]
    project = project_of(tmp_path / "shop", document)
    log = open_log(project)
    append(project, log, "impressions", "request,item", *((at, at, 0) for at in range(4)))
    append_heartbeat(project, log, NOW + 13_000)
    run_samples(project, log, until_end=True)
    document["events"]["candidates"], document["labels"][1]["candidates"] = logged, True
    project = project_of(tmp_path / "shop", document)
    log = open_log(project)
    append(project, log, "candidates", "request,item,fine", (3, 3, 10, 0.5))
    with pytest.raises(MigrationError, match="candidates"):
        run_samples(project, log, until_end=True)
    for path in project.join_state.iterdir():
        path.unlink()
    complete(project, log)
    rows = [
        (row["request"], row["kind"])
        for shard in range(2)
        for record in log.read("samples", shard, 0)
        for row in decode_sample_block(record.value).batch.to_pylist()
    ]
    assert sorted(rows) == [(0, "negative"), (1, "negative"), (2, "negative"), (3, "candidate"), (3, "negative")]


if __name__ == "__main__":
    arm_crash_point(crash_point_from_environment())
    killed_project = project_of(Path(sys.argv[1]))
    run_samples(killed_project, open_log(killed_project), until_end=True)
