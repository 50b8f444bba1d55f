"""The train job on a runner that lives on: one key per shard, whose work never ends and is done in turns.

The store's position is the truth: a key only says which shard, and all that Beam keeps is the timer that begins its
next turn. What learns is imported where it is needed: who submits the job does without TensorFlow, seconds sooner.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from pipeline.configuration.project import Project
from pipeline.logs.beam.key_spread import spread_keys
from pipeline.logs.beam.never_ending import never_end
from pipeline.logs.beam.source import LogHandle
from pipeline.telemetry import readers

_TURN_EVERY_S = 0.5


class AllShards(beam.DoFn):  # type: ignore[misc]
    """Anything → (key, nothing) of every shard."""

    def __init__(self, keys: Sequence[int]) -> None:
        self._keys = keys

    def process(self, element: bytes) -> Iterator[tuple[int, bytes]]:
        yield from ((key, b"") for key in self._keys)


class TrainLive(beam.DoFn):  # type: ignore[misc]
    """(a shard's key, nothing) → nothing: its commits are the result."""

    TURN = TimerSpec("turn", TimeDomain.REAL_TIME)

    def __init__(self, handle: LogHandle, keys: Sequence[int]) -> None:
        self._handle = handle
        self._shards = {key: shard for shard, key in enumerate(keys)}

    def setup(self) -> None:
        from pipeline.trainer.run.shard_threads import readings

        readers.register("train", partial(readings, self._handle.root))

    def teardown(self) -> None:
        from pipeline.trainer.run.shard_threads import let_go

        let_go(self._handle.root)

    def process(self, element: tuple[int, bytes], turn: Any = beam.DoFn.TimerParam(TURN)) -> None:  # noqa: B008 - Beam's way
        turn.set(Timestamp.now())

    @on_timer(TURN)  # type: ignore[misc]
    def train(self, key: Any = beam.DoFn.KeyParam, turn: Any = beam.DoFn.TimerParam(TURN)) -> None:  # noqa: B008
        from pipeline.trainer.run.shard_threads import turn as take_turn

        take_turn(*self._handle.open(), self._shards[key])
        turn.set(Timestamp.now() + _TURN_EVERY_S)


def build(pipeline: beam.Pipeline, project: Project) -> None:
    """Put the job's steps on `pipeline`."""
    handle, keys = (
        LogHandle(str(project.root)),
        spread_keys(project.config.logs.shards, project.config.flink.parallelism),
    )
    _ = (
        pipeline
        | "start" >> beam.Impulse()
        | "never end" >> never_end()
        | "shards" >> beam.ParDo(AllShards(keys)).with_output_types(tuple[int, bytes])
        | "train" >> beam.ParDo(TrainLive(handle, keys))
    )
