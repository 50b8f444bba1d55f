"""The samples job on Flink: follows the partitions of all inputs without an end. Partitions and shards are data."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from pipeline.configuration.project import Project
from pipeline.logs.beam.followed_partition import FollowPartition
from pipeline.logs.beam.key_spread import spread_keys
from pipeline.logs.beam.never_ending import never_end
from pipeline.logs.beam.partition_range import PartitionRange
from pipeline.logs.beam.source_block import ByValue, Transport
from pipeline.logs.beam.worker import LogHandle
from pipeline.samples.run.graph import SamplesGraph
from pipeline.samples.run.start_offsets import followed_ranges
from pipeline.samples.run.stored_shard import StoredShards


def build(pipeline: beam.Pipeline, project: Project) -> None:
    """Add the job's steps to `pipeline`."""
    parallelism = project.config.flink.parallelism
    graph = SamplesGraph(
        LogHandle(str(project.root)),
        ByValue(),
        spread_keys(project.config.logs.shards, parallelism),
        StoredShards,
    )
    graph.build(pipeline, FollowPartitions(graph.handle, graph.transport, parallelism))


class FollowPartitions(beam.PTransform):  # type: ignore[misc,type-arg]
    """The source: every input partition, from where the shards have read it, unbounded."""

    def __init__(self, handle: LogHandle, transport: Transport, parallelism: int) -> None:
        super().__init__()
        self._handle, self._transport, self._parallelism = handle, transport, parallelism

    def expand(self, pipeline: beam.Pipeline) -> Any:
        open_ranges = beam.ParDo(_OpenRanges(self._handle, self._parallelism))
        ranges = (
            pipeline
            | "start" >> beam.Impulse()
            | "never end" >> never_end()
            | "partitions" >> open_ranges.with_output_types(tuple[int, PartitionRange])
        )
        return ranges | "follow" >> beam.ParDo(FollowPartition(self._handle, self._transport)).with_output_types(bytes)


class _OpenRanges(beam.DoFn):  # type: ignore[misc]
    """Any element → (key, open range) for every input partition."""

    def __init__(self, handle: LogHandle, parallelism: int) -> None:
        self._handle, self._parallelism = handle, parallelism

    def process(self, element: bytes) -> Iterator[tuple[int, PartitionRange]]:
        worker = self._handle.worker()
        ranges = followed_ranges(worker.project, worker.log)
        yield from zip(spread_keys(len(ranges), self._parallelism), ranges, strict=True)
