"""What is held in memory for a batch until it was learned: its rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.arrays.types import UInt8s, UInt64s


@dataclass(eq=False)
class HeldRows:
    """The rows of one batch, from its preparation until it was learned. They are not swapped out meanwhile."""

    keys: Mapping[str, UInt64s]
    """By table, the distinct keys of the batch."""
    fetched: dict[str, tuple[UInt64s, UInt8s]] = field(default_factory=dict)
    """By table, keys [c] that were cold when the batch was prepared, and their rows [c, row bytes], read from disk."""
