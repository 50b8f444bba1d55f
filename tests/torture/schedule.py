"""Who is struck when, and how: a function of the seed and of nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VICTIMS = ("worker", "trainer", "taskmanager", "jobmanager", "replica", "kafka")
"""Killed and brought back: of every hand of cards each is one."""
RARE = {
    "absent taskmanager": "killed, not restarted for more than a minute; `springtide status` has to show what is wrong",
    "zombie worker": "stopped before it says samples, continued after another has taken over",
    "zombie trainer": "stopped before it commits, continued after another has taken over",
    "rollback planned": "the command ends once its plan is durable; an operator finishes it",
    "rollback said": "the command ends once serving was told of one shard; an operator finishes it",
}
"""From the second hand on, one of these is in it; they take turns."""
_PAUSE_S = (0.2, 3.0)
_OUTAGE_S = (0.0, 4.0)
_ABSENCE_S = (60.0, 75.0)
_HASTE = 1 / 4
_UNDOING = 1 / 6
_INTO_ROLLBACK_S = (0.0, 3.0)


@dataclass(frozen=True)
class Kill:
    """One `kill -9`, or one of RARE.

    Attributes:
        victim: one of VICTIMS or of RARE.
        hasty: struck while the world may still recover from the kill before, instead of after it has.
        pause_s: waited before it.
        outage_s: how long the victim stays away before an operator comes, where it takes one.
        rollback_s: how long into a rollback of bad data it is struck; None where there is no rollback.
    """

    victim: str
    hasty: bool
    pause_s: float
    outage_s: float
    rollback_s: float | None


@dataclass(frozen=True)
class Plan:
    """What to strike, and for how long at most; None for as long as it takes."""

    kills: list[Kill]
    within_s: float | None = None


def plan_kills(count: int, seed: int) -> Iterator[Kill]:
    """`count` kills; the first six are each victim once, of every seven after them one is rare.

    >>> sorted(kill.victim for kill in plan_kills(6, seed=3)) == sorted(VICTIMS)
    True
    >>> {kill.victim for kill in plan_kills(41, seed=3)} == {*VICTIMS, *RARE}
    True
    """
    random = np.random.default_rng([seed, 11])
    deck: list[str] = []
    rare: list[str] = []
    for number in range(count):
        if not deck:
            rare = rare or [str(name) for name in random.permutation(list(RARE))]
            deck = [str(name) for name in random.permutation([*VICTIMS, *([rare.pop()] if number else [])])]
        yield _kill(random, deck.pop(), first=number == 0)


def _kill(random: np.random.Generator, victim: str, first: bool) -> Kill:
    hasty = bool(random.random() < _HASTE) and not first
    pause_s = float(random.uniform(*_PAUSE_S))
    outage_s = float(random.uniform(*(_ABSENCE_S if victim == "absent taskmanager" else _OUTAGE_S)))
    undoing, into_s = bool(random.random() < _UNDOING), float(random.uniform(*_INTO_ROLLBACK_S))
    return Kill(victim, hasty, pause_s, outage_s, into_s if undoing and victim in VICTIMS else None)
