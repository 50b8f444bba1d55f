"""The samples job on a runner that lives on: partitions of both inputs, read as they grow, to shards.

    partitions → by key: read (spans) → split by shard → by key: join, append

Its steps are the same for every configuration, so a savepoint outlives a change of it; partitions and shards are data.
Decides nothing: the shards do.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from pipeline.configuration.project import Project
from pipeline.logs.beam.key_spread import spread_keys
from pipeline.logs.beam.live_source import SpanSource
from pipeline.logs.beam.never_ending import never_end
from pipeline.logs.beam.record_span import Span
from pipeline.logs.beam.source import LogHandle, PartitionRange
from pipeline.samples.run.live_shard import readings, split, starts, take
from pipeline.telemetry import readers


class OpenRanges(beam.DoFn):  # type: ignore[misc]
    """Anything → (key, open range) for every input partition, from what the shards have read."""

    def __init__(self, handle: LogHandle, parallelism: int) -> None:
        self._handle, self._parallelism = handle, parallelism

    def process(self, element: bytes) -> Iterator[tuple[int, PartitionRange]]:
        ranges = starts(*self._handle.open())
        yield from zip(spread_keys(len(ranges), self._parallelism), ranges, strict=True)


class SplitSpans(beam.DoFn):  # type: ignore[misc]
    """A span → (key, span) for every shard by its key, as bytes."""

    def __init__(self, handle: LogHandle, keys: Sequence[int]) -> None:
        self._handle, self._keys = handle, keys

    def process(self, element: bytes) -> Iterator[tuple[int, bytes]]:
        if len(self._keys) == 1:
            yield self._keys[0], element
            return
        for shard, part in split(Span.from_bytes(element), self._handle.open()[0]):
            yield self._keys[shard], part.to_bytes()


class JoinLive(beam.DoFn):  # type: ignore[misc]
    """(shard's key, span) → nothing; what a bundle decides goes to the shard's own partitions.

    Beam's state is one number, where the shard's samples ended: a log that has lost some is not written to.
    """

    _EMITTED_TO = ReadModifyWriteStateSpec("said to", VarIntCoder())

    def __init__(self, handle: LogHandle, keys: Sequence[int]) -> None:
        self._handle = handle
        self._shards = {key: shard for shard, key in enumerate(keys)}

    def setup(self) -> None:
        readers.register("samples", partial(readings, self._handle.root))
        self._emitted_to: dict[int, int] = {}

    def start_bundle(self) -> None:
        self._arrived: defaultdict[int, list[Span]] = defaultdict(list)

    def process(self, element: tuple[int, bytes], emitted_to: Any = beam.DoFn.StateParam(_EMITTED_TO)) -> None:  # noqa: B008 - Beam's way
        key, span = element
        shard = self._shards[key]
        if shard not in self._arrived:
            if shard in self._emitted_to:
                emitted_to.write(self._emitted_to[shard])
            else:
                self._emitted_to[shard] = emitted_to.read() or 0
        self._arrived[shard].append(Span.from_bytes(span))

    def finish_bundle(self) -> None:
        project, log = self._handle.open()
        for shard, spans in self._arrived.items():
            self._emitted_to[shard] = take(project, log, shard, spans, self._emitted_to[shard])


def build(pipeline: beam.Pipeline, project: Project) -> None:
    """Put the job's steps on `pipeline`."""
    parallelism = project.config.flink.parallelism
    handle, keys = LogHandle(str(project.root)), spread_keys(project.config.logs.shards, parallelism)
    spans = (
        pipeline
        | "start" >> beam.Impulse()
        | "never end" >> never_end()
        | "partitions" >> beam.ParDo(OpenRanges(handle, parallelism)).with_output_types(tuple[int, PartitionRange])
        | "read" >> beam.ParDo(SpanSource(handle)).with_output_types(bytes)
    )
    parts = spans | "split" >> beam.ParDo(SplitSpans(handle, keys)).with_output_types(tuple[int, bytes])
    _ = parts | "join" >> beam.ParDo(JoinLive(handle, keys))
