"""How far the join has read each input partition, its watermark there, and where it would have to restart.

A watermark depends on all earlier events, so the join can restart only at an offset whose watermark is recorded: the
start of a block that was fed. Not every start is recorded; to restart a little earlier costs little.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.arrays.block import EventBlock, EventKind
from pipeline.logs.events.codec import NO_WATERMARK

Input = tuple[EventKind, int]
"""An input partition."""

BEFORE_ALL_MS = -(2**62)
"""Earlier than every event."""
_APART_MS = 1_000
_APART_RECORDS = 4_096
"""Distance between recorded starts, in event time or in records: it bounds their number however small blocks are."""


@dataclass
class PartitionProgress:
    """One input partition.

    Attributes:
        next_offset: the next offset to read.
        watermark_ms: None before the first block.
        starts: (offset, watermark before it) of blocks that are still needed, ascending.
    """

    next_offset: int = 0
    watermark_ms: int | None = None
    starts: list[tuple[int, int | None]] = field(default_factory=list)

    def is_far_from_last_start(self) -> bool:
        """Whether the next offset should be recorded as a start."""
        if not self.starts:
            return True
        offset, watermark_ms = self.starts[-1]
        if self.next_offset - offset >= _APART_RECORDS:
            return True
        return watermark_ms is None or self.watermark_ms is None or self.watermark_ms - watermark_ms >= _APART_MS


class InputProgress:
    """All input partitions of one shard. Not thread-safe."""

    def __init__(self, partitions: Mapping[EventKind, int]) -> None:
        self.of: dict[Input, PartitionProgress] = {
            (kind, p): PartitionProgress() for kind, count in partitions.items() for p in range(count)
        }

    def begin(self, at: Input, offset: int, watermark_ms: int | None) -> None:
        """Start reading a partition at `offset`, with the watermark before it."""
        self.of[at] = PartitionProgress(offset, watermark_ms)

    def advance(self, block: EventBlock) -> None:
        """Move past a block that was fed."""
        at = self.of[block.kind, block.partition]
        if at.is_far_from_last_start():
            at.starts.append((at.next_offset, at.watermark_ms))
        at.next_offset = block.next_offset
        at.watermark_ms = block.watermark_ms if at.watermark_ms is None else max(at.watermark_ms, block.watermark_ms)

    def watermark(self, kinds: Iterable[EventKind]) -> int | None:
        """The smallest watermark over all partitions of `kinds`; None while one of them has none."""
        wanted = tuple(kinds)
        watermarks = [p.watermark_ms for (kind, _), p in self.of.items() if kind in wanted]
        known = [w for w in watermarks if w is not None]
        return min(known) if len(known) == len(watermarks) else None

    def max_event_time(self, inputs: Iterable[Input], disorder_ms: int) -> int:
        """The smallest max event time (ms) of `inputs`, at least one; `BEFORE_ALL_MS` if one has no event yet."""
        watermarks = [self.of[at].watermark_ms for at in inputs]
        known = [w for w in watermarks if w is not None and w != NO_WATERMARK]
        return min(known) + disorder_ms if len(known) == len(watermarks) else BEFORE_ALL_MS

    def prune(self, lowest: Mapping[Input, int]) -> None:
        """Remove starts that are not needed; `lowest` is the lowest needed offset, absent if nothing is needed."""
        for at, partition in self.of.items():
            needed = lowest.get(at, partition.next_offset)
            if needed >= partition.next_offset:
                partition.starts.clear()
            else:
                del partition.starts[: max(0, bisect_right(partition.starts, needed, key=_offset) - 1)]

    def restart_points(self) -> dict[Input, tuple[int, int | None]]:
        """By partition, the offset to restart at and the watermark before it; up to date after `prune`."""
        return {at: (p.starts[0] if p.starts else (p.next_offset, p.watermark_ms)) for at, p in self.of.items()}

    def to_json(self) -> list[list[Any]]:
        """Plain values for a header."""
        return [[*at, p.next_offset, p.watermark_ms, p.starts] for at, p in self.of.items()]

    def restore(self, stored: list[list[Any]]) -> None:
        """Replace the progress by that of `to_json`."""
        for kind, number, next_offset, watermark_ms, starts in stored:
            self.of[kind, number] = PartitionProgress(next_offset, watermark_ms, [(o, w) for o, w in starts])


def _offset(start: tuple[int, int | None]) -> int:
    return start[0]
