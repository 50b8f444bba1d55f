"""The deltas topic: one partition per shard, one fenced writer each, realtime and reverse deltas in chain order.

A delta is appended after its commit. A writer that starts reads what was said last and says again what is missing, in
the commit's own bytes; a replica skips what it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.configuration.project import Project
from pipeline.logs.log import Fence, Log, Record, last_record
from pipeline.publish.measure import publishing
from pipeline.versions.deltas.delta import Delta, decode_delta


@dataclass(frozen=True, order=True)
class DeltaPosition:
    """Where a chain stands after a delta."""

    generation: int
    sequence: int


class DeltaWriter:
    """Says deltas of one shard. Takes the fence when made: every earlier writer of the shard is refused from then."""

    def __init__(self, project: Project, log: Log, shard: int) -> None:
        self._log, self._topic, self._shard = log, project.config.topics.deltas, shard
        self._clock = project.clock
        log.create_topic(self._topic, project.config.logs.shards)
        self._fence: Fence = log.acquire_fence(self._topic, shard)

    def append(self, delta: Delta, encoded: bytes) -> int:
        """Append one delta; returns its offset. Raises FencedError where another writer took over."""
        with publishing(delta, len(encoded), self._clock):
            return self._log.append(
                self._topic, self._shard, [encoded], fence=self._fence, headers=delta_headers(delta)
            )

    def last_position(self) -> DeltaPosition | None:
        """Where the newest delta in the topic leads; None where there is none."""
        record = last_record(self._log, self._topic, self._shard)
        return delta_position(record) if record else None

    def append_missing(self, committed: Sequence[bytes]) -> int:
        """Say those of `committed`, encoded deltas in chain order, that lie behind the last one said; returns how many.

        A trainer calls this when it starts, with the deltas of its newest versions.
        """
        last, said = self.last_position(), 0
        for encoded in committed:
            delta = decode_delta(encoded)
            if last is None or last < DeltaPosition(delta.generation, delta.to_sequence):
                self.append(delta, encoded)
                said += 1
        return said


def delta_headers(delta: Delta) -> dict[str, str]:
    """What a reader may want to know of a delta before it decodes it."""
    return {
        "level": delta.level,
        "generation": str(delta.generation),
        "shard": str(delta.shard),
        "sequence": str(delta.to_sequence),
    }


def delta_position(record: Record) -> DeltaPosition:
    """Where the record's delta leads, by its headers, or by its bytes where it has none. Raises DamagedError."""
    if "generation" in record.headers and "sequence" in record.headers:
        return DeltaPosition(int(record.headers["generation"]), int(record.headers["sequence"]))
    delta = decode_delta(record.value)
    return DeltaPosition(delta.generation, delta.to_sequence)
