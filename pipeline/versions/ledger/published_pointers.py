"""Published pointers: which versions of a shard were published as files, per level."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.versions.state import VersionId


@dataclass(frozen=True)
class PublishedPointer:
    """A version that was published at a level, the path of its file, and when (wall time)."""

    level: str
    id: VersionId
    path: str
    at_ms: int


def latest_pointer(
    pointers: Iterable[PublishedPointer], level: str, last_sequences: Mapping[int, int]
) -> PublishedPointer | None:
    """The latest pointer of a level whose version CURRENT descends from; a version that was undone is skipped.

    `last_sequences`: by generation, the last sequence that CURRENT descends from.
    """
    valid = [p for p in pointers if p.level == level and p.id.sequence <= last_sequences.get(p.id.generation, -1)]
    return max(valid, key=lambda pointer: (pointer.id.generation, pointer.id.sequence), default=None)
