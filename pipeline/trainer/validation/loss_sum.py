"""The loss of the samples learned from, summed with exponential decay by log time, as the curvature of rows is."""

import math
import struct
from dataclasses import dataclass

_FORMAT = struct.Struct("<dq")


@dataclass(frozen=True)
class LossSum:
    """The decayed sum of losses.

    Attributes:
        value: as of `at_s`; below zero if compensations prevail.
        at_s: log time, s since 1970.

    >>> LossSum().plus(8.0, at_s=100, half_life_s=10).at(110, half_life_s=10)
    4.0
    """

    value: float = 0.0
    at_s: int = 0

    def at(self, at_s: int, half_life_s: float) -> float:
        """The sum as of log time `at_s`; an earlier time decays nothing."""
        return self.value * math.exp2(-max(at_s - self.at_s, 0) / half_life_s)

    def plus(self, loss: float, at_s: int, half_life_s: float) -> "LossSum":
        """The sum after a batch with this summed loss."""
        return LossSum(self.at(at_s, half_life_s) + loss, max(at_s, self.at_s))

    def to_bytes(self) -> bytes:
        """For `of_bytes`."""
        return _FORMAT.pack(self.value, self.at_s)

    @classmethod
    def of_bytes(cls, packed: bytes) -> "LossSum":
        """That of `to_bytes`."""
        return cls(*_FORMAT.unpack(packed))
