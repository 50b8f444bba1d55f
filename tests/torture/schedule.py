"""Who is killed when: a function of the seed and of nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VICTIMS = ("worker", "trainer", "taskmanager", "jobmanager", "replica", "kafka")
_PAUSE_S = (0.5, 6.0)
_OUTAGE_S = (0.0, 4.0)
_HASTE = 1 / 4


@dataclass(frozen=True)
class Kill:
    """One `kill -9`.

    Attributes:
        victim: one of VICTIMS.
        hasty: struck while the world may still recover from the kill before, instead of after it has.
        pause_s: waited before it.
        outage_s: how long the victim stays away before an operator comes, where it takes one.
    """

    victim: str
    hasty: bool
    pause_s: float
    outage_s: float


def plan_kills(count: int, seed: int) -> Iterator[Kill]:
    """`count` kills; of every six in a row from the start, each victim is one.

    >>> sorted(kill.victim for kill in plan_kills(6, seed=3)) == sorted(VICTIMS)
    True
    """
    random = np.random.default_rng([seed, 11])
    deck: list[str] = []
    for number in range(count):
        if not deck:
            deck = [str(name) for name in random.permutation(VICTIMS)]
        hasty = bool(random.random() < _HASTE) and number > 0
        yield Kill(deck.pop(), hasty, float(random.uniform(*_PAUSE_S)), float(random.uniform(*_OUTAGE_S)))
