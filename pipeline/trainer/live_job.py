"""The train job on a runner that lives on: one element per shard, whose work never ends and is done in turns.

The store's position is the truth: an element only says which shard, and nothing about it lives in Beam's state. What
learns is imported where it is needed: who submits the job does without TensorFlow, seconds sooner.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.transforms.core import RestrictionProvider

from pipeline.ground import telemetry
from pipeline.ground.project import Project
from pipeline.ground.spread import spread_keys
from pipeline.logs.source import LogDoor


@dataclass(frozen=True)
class Work:
    """A restriction: turns still to be had, without an end, or none. Beam drops a rest that is false."""

    ended: bool


class WorkTracker(RestrictionTracker):  # type: ignore[misc]
    """What is left after a turn is as much as before."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def current_restriction(self) -> Work:
        return self._work

    def try_claim(self, position: object) -> bool:
        return not self._work.ended

    def try_split(self, fraction_of_remainder: float) -> tuple[Work, Work] | None:
        if fraction_of_remainder != 0 or self._work.ended:
            return None
        self._work = Work(ended=True)
        return self._work, Work(ended=False)

    def check_done(self) -> None:
        if not self._work.ended:
            raise ValueError("a turn was left without a next one")

    def current_progress(self) -> RestrictionProgress:
        return RestrictionProgress(completed=0, remaining=1)

    def is_bounded(self) -> bool:
        return self._work.ended


class _Unending(RestrictionProvider):  # type: ignore[misc]
    def initial_restriction(self, element: int) -> Work:
        return Work(ended=False)

    def create_tracker(self, restriction: Work) -> WorkTracker:
        return WorkTracker(restriction)

    def restriction_size(self, element: int, restriction: Work) -> int:
        return 1


class AllShards(beam.DoFn):  # type: ignore[misc]
    """Anything → the key of every shard."""

    def __init__(self, keys: Sequence[int]) -> None:
        self._keys = keys

    def process(self, element: bytes) -> Iterator[int]:
        yield from self._keys


class TrainLive(beam.DoFn):  # type: ignore[misc]
    """A shard's key → nothing: its commits are the result."""

    def __init__(self, door: LogDoor, keys: Sequence[int]) -> None:
        self._door = door
        self._shards = {key: shard for shard, key in enumerate(keys)}

    def setup(self) -> None:
        from pipeline.trainer.held import readings

        telemetry.watch("train", partial(readings, self._door.root))

    def teardown(self) -> None:
        from pipeline.trainer.held import let_go

        let_go(self._door.root)

    def process(
        self,
        element: int,
        tracker: Any = beam.DoFn.RestrictionParam(_Unending()),  # noqa: B008 - how Beam declares a parameter
    ) -> None:
        from pipeline.trainer.held import turn

        turn(*self._door.open(), self._shards[element])
        tracker.defer_remainder()


def build(pipeline: beam.Pipeline, project: Project) -> None:
    """Put the job's steps on `pipeline`."""
    door, keys = LogDoor(str(project.root)), spread_keys(project.config.logs.shards, project.config.flink.parallelism)
    _ = (
        pipeline
        | "start" >> beam.Impulse()
        | "shards" >> beam.ParDo(AllShards(keys))
        | "spread" >> beam.Reshuffle()
        | "train" >> beam.ParDo(TrainLive(door, keys))
    )
