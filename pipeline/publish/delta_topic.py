"""The deltas topic: one partition per shard with one fenced writer, realtime and reverse deltas in order.

A delta is appended after its commit; a crash in between leaves it out. A writer that starts therefore reads the last
delta in its partition and appends what is missing, with the bytes of the commit; a replica skips what it has applied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.configuration.project import Project
from pipeline.logs.interface.log import Fence, Log, Record, last_record
from pipeline.publish.measurement import measure_publication
from pipeline.versions.deltas.delta import Delta, decode_delta


@dataclass(frozen=True, order=True)
class DeltaPosition:
    """The version that a delta results in."""

    generation: int
    sequence: int


class DeltaWriter:
    """Appends deltas of one shard. Acquires the fence when constructed: every earlier writer of the shard is fenced."""

    def __init__(self, project: Project, log: Log, shard: int) -> None:
        self._log, self._topic, self._shard = log, project.config.topics.deltas, shard
        self._clock = project.clock
        log.create_topic(self._topic, project.config.logs.shards)
        self._fence: Fence = log.acquire_fence(self._topic, shard)

    def append(self, delta: Delta, encoded: bytes) -> int:
        """Append one delta; returns its offset. Raises FencedError if another writer acquired the fence."""
        headers = delta_headers(delta)
        with measure_publication(delta, len(encoded), self._clock):
            return self._log.append(self._topic, self._shard, [encoded], fence=self._fence, headers=headers)

    def last_position(self) -> DeltaPosition | None:
        """The position of the last delta in the partition; None if it is empty."""
        record = last_record(self._log, self._topic, self._shard)
        return delta_position(record) if record else None

    def append_missing(self, committed: Sequence[bytes]) -> int:
        """Append the deltas after the last one in the partition; returns how many.

        A trainer calls this when it starts.

        Args:
            committed: the encoded deltas of the latest versions, in order.
        """
        last, appended = self.last_position(), 0
        for encoded in committed:
            delta = decode_delta(encoded)
            if last is None or last < DeltaPosition(delta.generation, delta.to_sequence):
                self.append(delta, encoded)
                appended += 1
        return appended


def delta_headers(delta: Delta) -> dict[str, str]:
    """The record headers of a delta, for readers that do not decode it."""
    return {
        "level": delta.level,
        "generation": str(delta.generation),
        "shard": str(delta.shard),
        "sequence": str(delta.to_sequence),
    }


def delta_position(record: Record) -> DeltaPosition:
    """The position of a record's delta, from its headers, or from its bytes without headers. Raises DamagedError."""
    if "generation" in record.headers and "sequence" in record.headers:
        return DeltaPosition(int(record.headers["generation"]), int(record.headers["sequence"]))
    delta = decode_delta(record.value)
    return DeltaPosition(delta.generation, delta.to_sequence)
