"""The deltas topic: one partition per shard with one fenced writer, realtime and reverse deltas in order.

A delta is appended after its commit; a crash in between leaves it out. A writer that starts therefore searches its
partition from the end and appends what is missing, with the bytes of the commit; a replica skips what it has applied.
"""

from collections.abc import Mapping, Sequence

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError
from pipeline.logs.interface.log import Fence, Log
from pipeline.publish.measurement import measure_publication
from pipeline.versions.deltas.delta import Delta, decode_delta
from pipeline.versions.deltas.delta_version import DeltaVersion, holds_delta, last_of_model
from pipeline.versions.state import VersionId


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

    def holds(self, version: DeltaVersion) -> bool:
        """Whether the partition holds the delta of a version; foreign and damaged records are skipped."""
        return holds_delta(self._log, self._topic, self._shard, version)

    def refuse_later(self, current: VersionId | None, model: Mapping[str, str]) -> None:
        """Raise DamagedError if the partition's last delta of `model` is later than `current`.

        No version is published before its commit: the ledger is then older than the topic. Records that are no deltas
        of this shard and model are skipped.
        """
        last = last_of_model(self._log, self._topic, self._shard, model)
        if last is None or (current and last <= DeltaVersion(current.generation, current.sequence)):
            return
        raise DamagedError(
            f"partition {self._topic}/{self._shard} ends with version {last.sequence} of generation {last.generation}, "
            f"CURRENT is {current}. hint: the ledger was lost or is another one: springtide restore-ledger restores it "
            "beside its version files; to begin anew, name another topic in topics.deltas"
        )

    def append_missing(self, committed: Sequence[bytes]) -> int:
        """Append the deltas that the partition does not hold; returns how many.

        A trainer calls this when it starts.

        Args:
            committed: the encoded deltas of the latest versions, in order.
        """
        appended = 0
        for encoded in committed:
            delta = decode_delta(encoded)
            if not self.holds(DeltaVersion(delta.generation, delta.to_sequence)):
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
