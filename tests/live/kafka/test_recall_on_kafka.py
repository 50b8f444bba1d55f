"""Recall on a real broker: the topic of items, and how soon clicks change what is recalled."""

import json
from contextlib import closing
from itertools import pairwise

import pytest

from pipeline.configuration.project import Project
from pipeline.demo.cascade.run import CascadeScenario, run_cascade
from pipeline.demo.cascade.stages import Sizes
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.serving.items.open import open_items
from tests.support.command.command_line import call, feed, make_events, springtide

WITHIN_S = 60.0


@pytest.fixture
def logs(settings):
    return f'engine = "kafka"\nbootstrap = "{settings.bootstrap}"\nprefix = "{settings.prefix}"\n'


@pytest.fixture
def shop(tmp_path, logs):
    """The gallery's two towers, trained, with a topic of items."""
    folder = tmp_path / "shop"
    assert call("init", folder, "--model", "two_tower").code == 0
    path = folder / "springtide.toml"
    path.write_text(f'{path.read_text()}\n[recall]\ntopic = "items"\n[logs]\n{logs}')
    springtide(folder, "topics", "create")
    impressions, clicks = make_events(1, 1_500)
    feed(folder, (impressions.drop(columns="position").assign(history=[["i1"]] * len(impressions)), clicks))
    springtide(folder, "run", "all", "--until-end")
    return folder


def ingest(shop, name, *items):
    path = shop / name
    path.write_text("".join(f"{json.dumps(item)}\n" for item in items))
    return springtide(shop, "ingest", "items", path)


def names(view):
    return {*view.recall([{"user": "u1"}], 100).items[0]}


def test_items_from_a_topic_are_found_changed_and_removed(shop):
    assert ingest(shop, "all.jsonl", *({"item": f"i{i}"} for i in range(20))) == {"put": 20, "removed": 0}
    assert ingest(shop, "again.jsonl", *({"item": f"i{i}"} for i in range(20))) == {"put": 0, "removed": 0}
    project = Project.open(shop)
    with closing(open_log(project)) as log:
        _, view = open_items(project, log)
        assert names(view) == {f"i{i}" for i in range(20)}
        ingest(shop, "changes.jsonl", {"item": "i3", "$removed": True}, {"item": "new"})
        assert view.admit() == 2
        assert names(view) == {f"i{i}" for i in range(20)} - {"i3"} | {"new"}
        _, replayed = open_items(project, log)
        assert replayed.recall([{"user": "u1"}], 100) == view.recall([{"user": "u1"}], 100)


def test_a_broker_keeps_the_last_change_of_each_item(shop):
    project = Project.open(shop)
    with closing(open_log(project)) as log:
        log.create_topic("items", 1)
        assert log.settings_of("items")["cleanup.policy"] == "compact"
        log.change_settings("items", {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"})
        for _ in range(4):
            lines = [{"item": f"i{i}"} for i in range(50)]
            ingest(shop, "all.jsonl", *lines, {"item": "i7", "$removed": True}, {"item": f"new{_}"})
            project.clock.wait(0.2)
        ingest(shop, "last.jsonl", {"item": "i9"})  # a segment that is written to is not compacted
        deadline_s = project.clock.monotonic_s() + WITHIN_S
        while len(records_of(log)) > 130 and project.clock.monotonic_s() < deadline_s:
            project.clock.wait(0.5)
        assert len(records_of(log)) <= 130  # of 4 * 53 + 2
        last = {record.key: record.value for record in records_of(log)}
        assert {*last} >= {b'"i7"', b'"i49"', b'"new3"'}
        _, view = open_items(project, log)
        assert names(view) == {f"i{i}" for i in range(50)} - {"i7"} | {f"new{i}" for i in range(4)}
        before = log.end_offset("items", 0)
        ingest(shop, "again.jsonl", {"item": "i9"})
        assert log.end_offset("items", 0) == before


def records_of(log):
    return [record for records in read_to_end(log, "items", 0) for record in records]


def test_clicks_change_recall_and_both_rankers(tmp_path, logs):
    market = MarketConfig(users=300, items=150, impressions_per_hour=8_000, hours=2, click_rate=0.3, churn=0.0)
    found = run_cascade(tmp_path, print, CascadeScenario(1, market, Sizes(60, 20, 5), 10, 8, logs))
    stages = found["stages"]
    assert all(a["items"] >= b["items"] for a, b in pairwise(stages.values()))
    for times_s in found["freshness_s"].values():
        assert len(times_s) == 8
        assert max(times_s) < WITHIN_S
