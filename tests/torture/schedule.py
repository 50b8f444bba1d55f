"""The schedule of kills: victims, pauses and kinds, as a pure function of the seed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VICTIMS = ("worker", "trainer", "taskmanager", "jobmanager", "replica", "kafka")
"""Processes that are killed and restored. Kills are drawn from shuffled decks that contain each victim once."""
RARE = {
    "absent taskmanager": "killed, not restarted for more than a minute; `springtide status` must report stalled jobs",
    "zombie worker": "stopped before it emits samples, continued after another has taken over",
    "zombie trainer": "stopped before it commits, continued after another has taken over",
    "rollback planned": "the command ends once its plan is durable; an operator finishes it",
    "rollback published": "the command ends once the reverse delta of one shard is published; an operator finishes it",
}
"""Every deck after the first contains one of these; each is used once before any repeats."""
_PAUSE_S = (0.2, 3.0)
_OUTAGE_S = (0.0, 4.0)
_ABSENCE_S = (60.0, 75.0)
_HASTY_SHARE = 1 / 4
_ROLLBACK_SHARE = 1 / 6
_INTO_ROLLBACK_S = (0.0, 3.0)


@dataclass(frozen=True)
class Kill:
    """One `kill -9`, or one of RARE.

    Attributes:
        victim: one of VICTIMS or of RARE.
        hasty: whether it comes before the recovery from the previous kill is complete.
        pause_s: time waited before it.
        outage_s: time until an operator restores the victim, if that is needed.
        rollback_s: time from the start of a rollback of bad data to the kill; None without a rollback.
    """

    victim: str
    hasty: bool
    pause_s: float
    outage_s: float
    rollback_s: float | None


@dataclass(frozen=True)
class Plan:
    """The kills, and the time limit in seconds; None is no limit."""

    kills: list[Kill]
    within_s: float | None = None


def plan_kills(count: int, seed: int) -> Iterator[Kill]:
    """`count` kills: the first six are each victim once; of every seven after them, one is rare.

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
    hasty = bool(random.random() < _HASTY_SHARE) and not first
    pause_s = float(random.uniform(*_PAUSE_S))
    outage_s = float(random.uniform(*(_ABSENCE_S if victim == "absent taskmanager" else _OUTAGE_S)))
    with_rollback, into_s = bool(random.random() < _ROLLBACK_SHARE), float(random.uniform(*_INTO_ROLLBACK_S))
    return Kill(victim, hasty, pause_s, outage_s, into_s if with_rollback and victim in VICTIMS else None)
