"""Several feedbacks from files to the samples log: ingest, topics, restarts, and a feedback declared later."""

import copy

import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.errors import MigrationError
from pipeline.ingest.event_writer import append_heartbeat
from pipeline.ingest.ingest import ingest
from pipeline.logs.events.dead_letters import read_dead_letters
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.open import open_log
from pipeline.samples.run.in_process import run_samples
from pipeline.samples.run.status import join_status
from tests.support.manual_clock import ManualClock

NOW = 1_700_000_000_000
DOCUMENT = {
    "logs": {"partitions": 2, "shards": 2},
    "events": {
        "key": ["id"],
        "disorder_s": 1.0,
        "impressions": {"columns": {"id": "int"}},
        "click": {"columns": {"id": "int"}, "window_s": 10.0, "horizon_s": 10.0},
        "purchase": {"columns": {"id": "int"}, "topic": "shop.purchases", "window_s": 60.0, "horizon_s": 60.0},
    },
    "samples": {"key_retention_s": 100.0},
    "fields": [{"name": "id", "columns": ["id"]}],
}


def project_of(root, document=DOCUMENT):
    return Project(root, parse_config(document), ManualClock(NOW + 10**7))


def append(project, log, kind, *events):
    path = project.root / f"{kind}-{len(list(project.root.glob('*.csv')))}.csv"
    path.write_text("at,id\n" + "".join(f"{NOW + 1000 * at},{id}\n" for at, id in events))
    assert ingest(project, log, kind, [path]).bad_rows == 0


def samples_in(project, log):
    """(id, kind, labels) of all samples, sorted."""
    found = []
    for shard in range(2):
        for record in log.read("samples", shard, 0):
            for row in decode_sample_block(record.value).batch.to_pylist():
                labels = {name: row[name] for name in project.config.label_names if row.get(name) is not None}
                found.append((row["id"], row["kind"], labels))
    return sorted(found, key=str)


def fill(project, log):
    append(project, log, "impressions", *((id, id) for id in range(6)))
    append(project, log, "click", (2, 1), (15, 2), (3, 99))
    append(project, log, "purchase", (30, 1), (70, 3), (130, 4))


EXPECTED = [
    (0, "negative", {"click": 0}), (0, "negative", {"purchase": 0}),
    (1, "positive", {"click": 1}), (1, "positive", {"purchase": 1}),
    (2, "compensation", {"click": 1}), (2, "negative", {"click": 0}), (2, "negative", {"purchase": 0}),
    (3, "compensation", {"purchase": 1}), (3, "negative", {"click": 0}), (3, "negative", {"purchase": 0}),
    (4, "negative", {"click": 0}), (4, "negative", {"purchase": 0}),
    (5, "negative", {"click": 0}), (5, "negative", {"purchase": 0}),
]  # fmt: skip


NOTHING = {"joined": 0, "negatives": 0, "compensations": 0, "late": 0, "set_aside": {}}
COUNTS = {
    "impressions": NOTHING,
    "click": NOTHING | {"joined": 2, "negatives": 5, "compensations": 1, "set_aside": {"orphan_click": 1}},
    "purchase": NOTHING
    | {"joined": 2, "negatives": 5, "compensations": 1, "late": 1, "set_aside": {"click_too_late": 1}},
}


def dead_in(log):
    letters = [read_dead_letters(log.read("dead-letters", shard, 0)).table.to_pylist() for shard in range(2)]
    return sorted((letter["reason"], letter["topic"]) for found in letters for letter in found)


def run(project, log):
    run_samples(project, log, until_end=True)


def test_every_feedback_reaches_the_samples_log_from_its_own_topic(tmp_path):
    project = project_of(tmp_path)
    log = open_log(project)
    fill(project, log)
    append_heartbeat(project, log, NOW + 400_000)
    run(project, log)
    assert samples_in(project, log) == EXPECTED
    assert dead_in(log) == [("click_too_late", "shop.purchases"), ("orphan_click", "click")]
    assert join_status(project, log)["inputs"]["shop.purchases/0"]["lag"] == 0
    assert join_status(project, log)["feedbacks"] == COUNTS


@pytest.mark.parametrize("lost", [False, True])
def test_a_restart_emits_no_label_twice_with_and_without_its_state(tmp_path, lost):
    project = project_of(tmp_path)
    log = open_log(project)
    fill(project, log)
    for at in (5, 12, 40, 65, 100, 400):
        append_heartbeat(project, log, NOW + 1000 * at)
        run(project, log)
        counts = join_status(project, log)["feedbacks"]
        if lost:
            for path in project.join_state.iterdir():
                path.unlink()
    assert counts == COUNTS
    assert samples_in(project, log) == EXPECTED
    assert dead_in(log) == [("click_too_late", "shop.purchases"), ("orphan_click", "click")]


def test_a_feedback_that_is_declared_later_is_read_from_its_beginning(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    purchase = document["events"].pop("purchase")
    project = project_of(tmp_path, document)
    log = open_log(project)
    append(project, log, "impressions", *((id, id) for id in range(6)))
    append(project, log, "click", (2, 1), (15, 2))
    append_heartbeat(project, log, NOW + 13_000)
    run(project, log)
    document["events"]["purchase"] = purchase
    project = project_of(tmp_path, document)
    log = open_log(project)
    append(project, log, "purchase", (30, 1), (40, 2))
    with pytest.raises(MigrationError, match="purchase"):
        run(project, log)
    for path in project.join_state.iterdir():
        path.unlink()
    append_heartbeat(project, log, NOW + 400_000)
    run(project, log)
    assert {row for row in map(str, samples_in(project, log)) if "'purchase': 1" in row} == {
        str((1, "positive", {"purchase": 1.0})),
        str((2, "positive", {"purchase": 1.0})),
    }
    clicks = [row for row in samples_in(project, log) if "click" in row[2]]
    assert len({(id, kind) for id, kind, _ in clicks}) == len(clicks)
