"""Invalid input through the job on Flink: it is set aside or joined, and does not affect other events."""

import time
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.project import Project
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.open import open_log
from tests.live.live_shop import ShopOnKafka
from tests.support.command.command_line import START_MS, samples_of, springtide

GARBAGE = [b"", b"no event", bytes(range(256)), b"\0\0\0\0\7cut"]


@pytest.fixture
def shop(cluster, tmp_path, request):
    made = ShopOnKafka(tmp_path, cluster, getattr(request, "param", None))
    yield made
    made.stop()


def letters_of(shop, project=None):
    listed = springtide(project or shop.project, "dead-letters", "list")["dead_letters"]
    return {(row["topic"], row["reason"]): row["letters"] for row in listed}


def append(project, kind, values):
    """Append to the log directly, without checks."""
    log = open_log(Project.open(project))
    log.append(kind, 0, values)
    log.close()


def test_garbage_between_good_events_is_set_aside_and_the_job_continues(shop):
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    for kind in ("impressions", "clicks"):
        for project in (shop.project, shop.twin):
            append(project, kind, GARBAGE)
    shop.feed(close=True)
    shop.wait_until_joined()
    wanted = letters_of(shop, shop.twin)
    assert wanted["impressions", "undecodable"] == wanted["clicks", "undecodable"] == len(GARBAGE)
    shop.wait_for(lambda: letters_of(shop) == wanted)
    assert (shop.job()["state"], shop.job()["restarts"]) == ("RUNNING", 0)


def test_a_record_larger_than_a_fetch_is_joined(shop):
    rows, random = 60_000, np.random.default_rng(1)
    large = {
        "at": pa.array([START_MS] * rows),
        "impression_id": pa.array([f"large-{n}" for n in range(rows)]),
        "user": pa.array([random.bytes(64).hex() for _ in range(rows)]),
        "item": pa.array(["i"] * rows),
        "position": pa.array([0] * rows),
    }
    for project in (shop.project, shop.twin):
        opened = Project.open(project)
        log = open_log(opened)
        value = EventCodec(opened.config.events, "impressions", log).encode_block(pa.record_batch(large))
        assert len(value) > 7 << 20
        log.append("impressions", 0, [value])
        log.close()
    shop.run()
    shop.feed(2, close=True)
    shop.wait_until_joined()
    assert shop.job()["restarts"] == 0


SECONDS = 8
QUICK = {
    "disorder_s = 30": "disorder_s = 2\nskew_s = 60",
    "window_s = 600": "window_s = 3",
    "horizon_s = 3600": "horizon_s = 5",
}


@dataclass
class Producer:
    """Appends impressions, one per call, dated by a clock that is wrong by `off_ms`."""

    name: str
    off_ms: int
    shown: list = field(default_factory=list)

    def show(self, codec, log):
        at, name = time.time_ns() // 1_000_000 + self.off_ms, f"{self.name}-{len(self.shown)}"
        log.append("impressions", 0, [codec.encode_event(at, {"impression_id": name, "user": "u", "item": "i"})])
        self.shown.append(name)


@pytest.mark.parametrize("shop", [QUICK], indirect=True)
def test_clocks_that_are_wrong_harm_only_the_events_they_date(shop):
    opened = Project.open(shop.project)
    log = open_log(opened)
    codec = EventCodec(opened.config.events, "impressions", log)
    right, ahead = Producer("right", -300), Producer("ahead", 50_000)
    far_ahead, behind = Producer("far-ahead", 300_000), Producer("behind", -300_000)
    shop.run()
    ends_s = time.monotonic() + SECONDS
    while time.monotonic() < ends_s:
        for producer in (right, ahead, far_ahead, right, behind):
            producer.show(codec, log)
        time.sleep(0.05)
    log.close()
    # The heartbeat is also dated ahead, within the skew, so that windows of events slightly ahead close as well.
    springtide(shop.project, "heartbeat", time.time_ns() // 1_000_000 + 59_000)
    shop.wait_for(lambda: len(samples_of(shop.project)) >= len(right.shown) + len(ahead.shown))
    found = samples_of(shop.project)
    assert sorted(found["impression_id"]) == sorted(right.shown + ahead.shown)
    assert set(found["kind"]) == {"negative"}
    wanted = {("impressions", "time_out_of_range"): len(far_ahead.shown)}
    wanted["impressions", "impression_too_late"] = len(behind.shown)
    shop.wait_for(lambda: letters_of(shop) == wanted)
    assert shop.job()["restarts"] == 0
