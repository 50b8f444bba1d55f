"""What is profiled: each function prepares a workload in a folder and returns a call that works until an event."""

import itertools
import shutil
import threading
from pathlib import Path

from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.open import open_log
from pipeline.samples.run.in_process import run_samples
from pipeline.serving.replica import Replica
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.load.stream import append_samples, field_names, stream_project
from tests.benchmarks.stages.join import SPAN_S, fill, join_project
from tests.profile.sampler import Work

_SAMPLES, _EVENTS, _REQUEST_ROWS = 400_000, 300_000, 500


def trainer(folder: Path) -> Work:
    """The trainer of the benchmark `batch`: it learns a stream, then the same again, warm, over and over."""
    project = stream_project(folder)
    log, topic = open_log(project), project.config.topics.samples
    append_samples(project, log, seed=1, rows=_SAMPLES, per_second=50_000)
    shard = TrainerShard(project, log, VersionStore(project), 0)
    shard.train(1, threading.Event())

    def work(stop: threading.Event) -> None:
        for start in itertools.count(_SAMPLES, _SAMPLES):
            shard.train(log.end_offset(topic, 0), stop)
            if stop.is_set():
                return shard.close()
            append_samples(project, log, seed=1, rows=_SAMPLES, per_second=50_000, start=start, again=True)
        return None

    return work


def join(folder: Path) -> Work:
    """The join of the benchmark `join`: every pass over the events begins with a copy of their log."""
    project = join_project(folder / "filled", SPAN_S / 20)
    log = open_log(project)
    fill(project, log, _EVENTS)
    log.close()

    def work(stop: threading.Event) -> None:
        while not stop.is_set():
            shutil.copytree(folder / "filled", folder / "joined")
            copied = join_project(folder / "joined", SPAN_S / 20)
            run_samples(copied, open_log(copied), until_end=True)
            shutil.rmtree(folder / "joined")

    return work


def replica(folder: Path) -> Work:
    """A replica that applies the deltas of a trained stream from the first on, and predicts between them."""
    project = stream_project(folder, train={"commit_every_batches": 2})
    log, topic = open_log(project), project.config.topics.samples
    append_samples(project, log, seed=1, rows=_SAMPLES // 8, per_second=50_000)
    shard = TrainerShard(project, log, VersionStore(project), 0)
    shard.train(log.end_offset(topic, 0), threading.Event())
    shard.close()
    record = log.read(topic, 0, 0, ReadLimits(records=1, wait_ms=0))[0]
    rows = decode_sample_block(record.value).batch.slice(0, _REQUEST_ROWS)
    instances = rows.select(["id", *field_names(len(project.config.fields))]).to_pylist()

    def work(stop: threading.Event) -> None:
        while not stop.is_set():
            served = Replica(project, log)
            served.load_predictor()
            while served.catch_up():
                served.predict(instances)
            for _ in range(100):
                served.predict(instances)

    return work
