"""The graph of the samples job, the same in process and on Flink.

    source → split by shard → join and emit

Sources emit blocks of thousands of events; keys stand for shards. Only the source, the transport of blocks between
steps, and the runner differ. The steps are the same for every configuration, so a savepoint survives a change of it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from pipeline.configuration.project import Project
from pipeline.logs.beam.source_block import SourceBlock, Transport
from pipeline.logs.beam.worker import LogHandle
from pipeline.logs.interface.log import Log
from pipeline.telemetry import readers
from pipeline.telemetry.registry import Reading

SHARDS = "join shards"
"""The name of the open shards among a worker's objects."""


class OpenShards(Protocol):
    """The join shards that are open in this process."""

    def process(self, shard: int, blocks: Sequence[SourceBlock], emitted_to: int) -> int:
        """Join the blocks of one bundle and emit; returns where the shard's samples partition now ends."""

    def readings(self) -> Iterator[Reading]:
        """Metrics of the shards."""


@dataclass(frozen=True)
class SamplesGraph:
    """What the steps of the samples job share. Can be pickled.

    Attributes:
        handle: leads to project, log and open shards.
        transport: how blocks travel between steps.
        keys: the key of each shard.
        open_shards: creates the open shards of a worker at their first use.
    """

    handle: LogHandle
    transport: Transport
    keys: tuple[int, ...]
    open_shards: Callable[[Project, Log], OpenShards]

    def build(self, pipeline: beam.Pipeline, source: Any) -> None:
        """Add the job's steps to `pipeline`; `source`, a PTransform, emits blocks as elements of the transport."""
        _ = (
            pipeline
            | "read" >> source
            | "split" >> beam.ParDo(_SplitByShard(self)).with_output_types(tuple[int, bytes])
            | "join" >> beam.ParDo(_JoinShards(self))
        )

    def shards(self) -> OpenShards:
        """The shards open in this process."""
        return self.handle.worker().get(SHARDS, self.open_shards)

    def readings(self) -> Iterator[Reading]:
        """Metrics of the shards open in this process. Raises LogError."""
        shards: OpenShards | None = self.handle.created(SHARDS)
        if shards is not None:
            yield from shards.readings()


class _SplitByShard(beam.DoFn):  # type: ignore[misc]
    """A block → (key, its part) for every shard."""

    def __init__(self, graph: SamplesGraph) -> None:
        self._graph = graph

    def process(self, element: bytes) -> Iterator[tuple[int, bytes]]:
        keys, transport = self._graph.keys, self._graph.transport
        if len(keys) == 1:
            yield keys[0], element
            return
        columns = self._graph.handle.worker().project.config.events.shard_columns
        for shard, part in transport.unpack(element).split(columns, len(keys)):
            yield keys[shard], transport.pack(part)


class _JoinShards(beam.DoFn):  # type: ignore[misc]
    """(a shard's key, block) → nothing; the shard appends its samples to its own partition when the bundle ends.

    Beam's state is one number, the end of the shard's samples partition: it detects a log that has lost samples.
    """

    _EMITTED_TO = ReadModifyWriteStateSpec("emitted to", VarIntCoder())

    def __init__(self, graph: SamplesGraph) -> None:
        self._graph = graph
        self._shard_of = {key: shard for shard, key in enumerate(graph.keys)}

    def setup(self) -> None:
        readers.register("samples", self._graph.readings)
        self._emitted_to: dict[int, int] = {}

    def start_bundle(self) -> None:
        self._blocks: defaultdict[int, list[SourceBlock]] = defaultdict(list)

    def process(self, element: tuple[int, bytes], emitted_to: Any = beam.DoFn.StateParam(_EMITTED_TO)) -> None:  # noqa: B008 - Beam's way
        shard = self._shard_of[element[0]]
        if shard not in self._blocks:
            if shard in self._emitted_to:
                emitted_to.write(self._emitted_to[shard])
            else:
                self._emitted_to[shard] = emitted_to.read() or 0
        self._blocks[shard].append(self._graph.transport.unpack(element[1]))

    def finish_bundle(self) -> None:
        with self._graph.handle.worker().reporting():
            for shard, blocks in self._blocks.items():
                self._emitted_to[shard] = self._graph.shards().process(shard, blocks, self._emitted_to[shard])
