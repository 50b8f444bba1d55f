"""The graph of the train job on Flink: one key per shard, driven in turns without an end.

    shards → train: read, admit, learn, commit, publish

The ledger's CURRENT decides where a shard continues: an element only names a shard, and all that Beam keeps is the
timer of its next turn. Modules that import TensorFlow are imported in the worker: submitting a job does not need it.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from pipeline.configuration.project import Project
from pipeline.logs.beam.key_spread import spread_keys
from pipeline.logs.beam.never_ending import never_end
from pipeline.logs.beam.worker import LogHandle
from pipeline.telemetry import readers
from pipeline.telemetry.registry import Reading

THREADS = "trainer threads"
"""The name of the trainer's threads among a worker's objects."""
_TURN_EVERY_S = 0.5


def build(pipeline: beam.Pipeline, project: Project) -> None:
    """Add the job's steps to `pipeline`."""
    keys = spread_keys(project.config.logs.shards, project.config.flink.parallelism)
    _ = (
        pipeline
        | "start" >> beam.Impulse()
        | "never end" >> never_end()
        | "shards" >> beam.ParDo(AllShards(keys)).with_output_types(tuple[int, bytes])
        | "train" >> beam.ParDo(TrainShards(LogHandle(str(project.root)), keys))
    )


class AllShards(beam.DoFn):  # type: ignore[misc]
    """Any element → (key, nothing) of every shard."""

    def __init__(self, keys: tuple[int, ...]) -> None:
        self._keys = keys

    def process(self, element: bytes) -> Iterator[tuple[int, bytes]]:
        yield from ((key, b"") for key in self._keys)


class TrainShards(beam.DoFn):  # type: ignore[misc]
    """(a shard's key, nothing) → nothing: the shard's commits are the result."""

    TURN = TimerSpec("turn", TimeDomain.REAL_TIME)

    def __init__(self, handle: LogHandle, keys: tuple[int, ...]) -> None:
        self._handle = handle
        self._shard_of = {key: shard for shard, key in enumerate(keys)}

    def setup(self) -> None:
        readers.register("train", self._readings)

    def teardown(self) -> None:
        threads = self._handle.created(THREADS)
        if threads is not None:
            threads.close()

    def process(self, element: tuple[int, bytes], turn: Any = beam.DoFn.TimerParam(TURN)) -> None:  # noqa: B008 - Beam's way
        turn.set(Timestamp.now())

    @on_timer(TURN)  # type: ignore[misc]
    def train(self, key: Any = beam.DoFn.KeyParam, turn: Any = beam.DoFn.TimerParam(TURN)) -> None:  # noqa: B008
        from pipeline.trainer.run.shard_threads import ShardThreads

        self._handle.worker().get(THREADS, ShardThreads).keep_alive(self._shard_of[key])
        turn.set(Timestamp.now() + _TURN_EVERY_S)

    def _readings(self) -> Iterator[Reading]:
        threads = self._handle.created(THREADS)
        if threads is not None:
            yield from threads.readings()
