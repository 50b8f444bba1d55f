"""The element of the samples job: the events of one run of records, and how it travels between two steps.

A block names the offset it starts at, so a shard detects missing records without relying on the runner.
"""

import itertools
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pipeline.arrays.block import DeadLetters, EventBlock
from pipeline.arrays.keys import shard_of
from pipeline.logs.beam.worker import LogHandle
from pipeline.logs.events.codec import DecodedRun


@dataclass(frozen=True)
class SourceBlock:
    """The records of one partition from offset `start` to the block's next offset.

    Attributes:
        start: first offset.
        block: the events.
        dead: the dead letters of the source; None if there are none.
        more: whether the partition has records after the block that can be read now.
    """

    start: int
    block: EventBlock
    dead: DeadLetters | None
    more: bool = False

    @classmethod
    def of(cls, start: int, decoded: DecodedRun, *, more: bool = False) -> "SourceBlock":
        """The block decoded from the records that begin at `start`."""
        return cls(start, decoded.block, decoded.dead if decoded.dead.table.num_rows else None, more)

    def split(self, columns: Sequence[str], shards: int) -> Iterator[tuple[int, "SourceBlock"]]:
        """(shard, its part) for every shard; offsets and watermark go to all shards, dead letters to one."""
        if shards == 1:
            yield 0, self
            return
        of = shard_of(self.block.columns, columns, shards)
        for shard in range(shards):
            dead = self.dead if shard == self.block.partition % shards else None
            yield shard, replace(self, block=self.block.take(np.flatnonzero(of == shard)), dead=dead)


class Transport(Protocol):
    """How blocks travel between the steps of a job."""

    def pack(self, block: SourceBlock) -> bytes:
        """The element that stands for the block."""

    def unpack(self, element: bytes) -> SourceBlock:
        """The block that an element stands for."""


class ByValue:
    """Elements hold the block's bytes. Both ends must run the same release."""

    def pack(self, block: SourceBlock) -> bytes:
        return pickle.dumps(block, protocol=5)

    def unpack(self, element: bytes) -> SourceBlock:
        block = pickle.loads(element)
        assert isinstance(block, SourceBlock)
        return block


class References:
    """Blocks under way between two steps of this process. Thread-safe: each call is one operation on a dict."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, SourceBlock] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, block: SourceBlock) -> bytes:
        """Store a block; returns its reference."""
        reference = next(self._numbers).to_bytes(8, "big")
        self._blocks[reference] = block
        return reference

    def pop(self, reference: bytes) -> SourceBlock:
        """Return the block and remove it."""
        return self._blocks.pop(reference)

    def clear(self) -> None:
        """Remove the blocks that no step fetched, after a failure."""
        self._blocks.clear()


@dataclass(frozen=True)
class ByReference:
    """Elements hold a reference, valid once and in this process: Beam copies a block's bytes half a dozen times.

    Blocks that are lost with the process are read from the log again.
    """

    handle: LogHandle

    def references(self) -> References:
        """The blocks under way in this process."""
        return self.handle.worker().get("references", lambda *_: References())

    def pack(self, block: SourceBlock) -> bytes:
        return self.references().add(block)

    def unpack(self, element: bytes) -> SourceBlock:
        return self.references().pop(element)
