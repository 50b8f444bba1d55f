"""Halts: a shard that bad data has stopped stays stopped across restarts until its halt is cleared."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Halt:
    """Why a shard is halted, the file of the batch that caused it, and since when (wall time).

    `number` counts the halts of the shard, from 1.
    """

    shard: int
    reason: str
    batch_file: str
    at_ms: int
    number: int
