"""What a join has decided and not returned yet: samples and dead letters, in the order of the decisions."""

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import DeadLetters
from pipeline.arrays.types import Bools
from pipeline.samples.join.dead_letters import dead_letters
from pipeline.samples.join.samples import DecidedSamples


class Decided:
    """Not thread-safe."""

    def __init__(self) -> None:
        self._samples: list[DecidedSamples] = []
        self._dead: list[DeadLetters] = []

    def __bool__(self) -> bool:
        return bool(self._samples or self._dead)

    def add(self, samples: DecidedSamples) -> None:
        """Add samples of one kind."""
        self._samples.append(samples)

    def add_dead(self, reason: str, topic: str, rows: np.ndarray, columns: pa.RecordBatch, which: Bools) -> None:
        """Add dead letters of one reason: the events of `topic` for which [n] `which` is true.

        `rows` are their [n] typed rows, `columns` their [n] raw columns.
        """
        chosen = np.flatnonzero(which)
        if len(chosen):
            selected = columns.take(pa.array(chosen))
            self._dead.append(dead_letters(reason, topic, rows.take(chosen), selected))

    def take(self) -> tuple[list[DecidedSamples], list[DeadLetters]]:
        """Everything that was added since the last call."""
        samples, dead = self._samples, self._dead
        self._samples, self._dead = [], []
        return samples, dead
