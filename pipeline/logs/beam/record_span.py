"""A run of records as it travels live: where it began, its events, and what was set aside among them.

A shard that knows where a run began sees whether it has read everything before it, and so need not rely on the runner
for that.
"""

import pickle
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.arrays.block import DeadLetters, EventBlock
from pipeline.logs.events.codec import DecodedRun


@dataclass(frozen=True)
class Span:
    """The records of one partition from offset `start` to the block's next offset.

    Attributes:
        start: first offset.
        block: the events.
        dead: what the source set aside; None where it was nothing.
    """

    start: int
    block: EventBlock
    dead: DeadLetters | None

    @classmethod
    def of(cls, start: int, decoded: DecodedRun) -> "Span":
        """What was decoded from the records that begin at `start`."""
        return cls(start, decoded.block, decoded.dead if decoded.dead.table.num_rows else None)

    def part(self, rows: npt.NDArray[np.int64], *, with_dead: bool) -> "Span":
        """The span with these rows of its block only, and with the dead letters or without."""
        return replace(self, block=self.block.take(rows), dead=self.dead if with_dead else None)

    def to_bytes(self) -> bytes:
        """One element for Beam; read it back with `from_bytes` in the same release only."""
        return pickle.dumps(self, protocol=5)

    @staticmethod
    def from_bytes(element: bytes) -> "Span":
        span = pickle.loads(element)
        assert isinstance(span, Span)
        return span
