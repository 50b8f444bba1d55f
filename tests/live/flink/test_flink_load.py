"""Jobs on Flink under load: slower than their input, hours behind, restored from an old savepoint.

No process queues events: the log is the buffer, lag is reported, and memory does not grow with it.
"""

import os
import shutil
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import BLOCK_ROWS
from pipeline.logs.open import open_log
from tests.live.live_shop import SHARDED, Shop, ShopOnKafka, change, current, latest, workers
from tests.support.command.command_line import feed, make_events, make_shop, springtide
from tests.support.command.scrape import scrape, url_of

MOST_GROWTH_BYTES = 160 << 20
"""The most that a process's resident memory may grow beyond that for a small part of the same work."""


@pytest.fixture
def shop(cluster, tmp_path, request):
    made = Shop(tmp_path, cluster, getattr(request, "param", None))
    yield made
    made.stop()


@pytest.fixture
def on_kafka(cluster, tmp_path, request):
    made = ShopOnKafka(tmp_path, cluster, getattr(request, "param", None))
    yield made
    made.stop()


def workers_of(shop, job):
    """Process ids of one job's workers: recognised by their log files."""
    folder = shop.project / "state" / "flink" / "workers" / job
    return [pid for pid in workers(shop.cluster) if Path(os.readlink(f"/proc/{pid}/fd/1")).parent == folder]


def resident_bytes(pid):
    """Resident memory of a process; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Peaks:
    """Polls some numbers in a `with` block and records the peak of each."""

    def __init__(self, **numbers):
        self._numbers, self._stop = numbers, threading.Event()
        self.of = dict.fromkeys(numbers, 0)

    def __enter__(self):
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()
        return self.of

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _poll(self):
        while not self._stop.wait(0.2):
            for name, number in self._numbers.items():
                self.of[name] = max(self.of[name], number())


@contextmanager
def stopped(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_stopped_trainer_does_not_delay_the_join_and_catches_up_to_the_same_model(shop):
    shop.feed()
    shop.run("all")
    shop.wait_until_joined()
    shop.wait_for(lambda: latest(shop.project))
    trainers, joiners = workers_of(shop, "train"), workers_of(shop, "samples")
    assert trainers
    assert joiners
    processes = [*trainers, *joiners, shop.cluster.running()["taskmanager-1"].pid]
    before = {pid: resident_bytes(pid) for pid in processes}
    with Peaks(**{str(pid): lambda pid=pid: resident_bytes(pid) for pid in processes}) as peaks:
        with stopped(trainers):
            shop.feed(6, close=True)
            shop.wait_until_joined()
            (shard,) = springtide(shop.project, "status")["trainer"]
            assert shard["lag_records"] > 0
        reference = make_shop(shop.project.parent / "reference")
        shutil.copytree(shop.project / "state" / "logs" / "samples", reference / "state" / "logs" / "samples")
        springtide(reference, "run", "train", "--until-end")
        shop.wait_for(lambda: current(shop.project) == current(reference))
    (shard,) = springtide(shop.project, "status")["trainer"]
    assert shard["lag_records"] == 0
    assert {pid: peaks[str(pid)] - before[pid] > MOST_GROWTH_BYTES for pid in processes} == dict.fromkeys(
        processes, False
    )
    assert {row["restarts"] for row in springtide(shop.project, "status")["jobs"]} == {0}


PER_HOUR, HOURS = 20_000, 6
DURATIONS_S = 600 + 3_600 + 600 + 30
"""Window, horizon, remember and disorder of the shop."""
MEASURED = {"[telemetry]\n": "[telemetry]\nport = 0\n"}


@pytest.mark.parametrize("on_kafka", [MEASURED], indirect=True)
def test_a_join_that_is_six_hours_behind_holds_no_more_than_usual(on_kafka):
    shop = on_kafka
    feed_both(shop, make_events(3, HOURS * PER_HOUR, every_ms=3_600_000 // PER_HOUR))
    assert springtide(shop.project, "status")["join"]["inputs"]["impressions/0"]["lag"] > 0
    with Peaks(
        held=lambda: metric_of(shop, "springtide_join_held_impressions"),
        bytes=lambda: metric_of(shop, "springtide_join_state_bytes"),
        resident=lambda: metric_of(shop, "process_resident_memory_bytes"),
    ) as peaks:
        shop.run()
        shop.wait_until_joined()
        shop.wait_for(lambda: springtide(shop.project, "status")["join"]["inputs"]["impressions/0"]["lag"] == 0)
        shop.wait_for(lambda: peaks["bytes"])
    # One input may be ahead by a window, both are read in blocks, and buckets are dropped as a unit.
    assert (
        0
        < peaks["held"]
        <= (DURATIONS_S + 600) * PER_HOUR / 3_600 * (1 + 1 / 16) + 2 * BLOCK_ROWS
        < HOURS * PER_HOUR / 2
    )
    assert 0 < peaks["bytes"] <= 200 * peaks["held"]
    assert 0 < peaks["resident"] <= 1 << 30


def feed_both(shop, events):
    """Into the live project and its twin, which joins them."""
    for folder in (shop.project, shop.twin):
        feed(folder, events, close=False)
    springtide(shop.twin, "run", "samples", "--until-end")


def metric_of(shop, metric):
    """A metric of the samples job's worker; 0 while it is unavailable."""
    try:
        (name,) = [path.stem for path in (shop.project / "state" / "telemetry").glob("samples-*.json")]
        return sum(scrape(str(url_of(shop.project, name))).all(metric).values())
    except (OSError, ValueError):
        return 0


@pytest.mark.parametrize("shop", [SHARDED], indirect=True)
def test_a_job_restored_from_its_savepoint_while_its_state_folder_is_ahead_emits_nothing_twice(shop):
    """A shard is fenced: its bundle fails, and Flink restores both shards from the old savepoint in a new worker.

    The same with a worker that keeps running ahead: `tests/samples/run/test_restored_job.py`.
    """
    change(shop.project, {"checkpoint_every_s = 1": "checkpoint_every_s = 3600"})
    shop.feed()
    shop.run()
    shop.wait_until_joined()
    shop.stop()
    shop.run()
    shop.feed(2)
    shop.wait_until_joined()
    log = open_log(Project.open(shop.project))
    for shard in range(2):
        log.acquire_fence("samples", shard)
        shop.feed(close=shard == 1)
        shop.wait_until_joined()
    log.close()
    shop.wait_for(lambda: shop.job()["restarts"] >= 2)
    assert shop.job()["last_checkpoint"] is None
