"""Training state in commits: admission counters take megabytes and change little, so commits store the change.

A change is the exclusive or of two parts of the state of one length, deflated. Exclusive or is associative, so changes
merge in any grouping. A part of which most bytes changed is stored complete: deflating it takes long and saves nothing.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_MIN_CHANGE_BYTES = 4_096
"""Smaller parts are stored complete."""


class StateChange(NamedTuple):
    """Training state by name: parts that are complete, and parts that are the change since the parent."""

    complete: Mapping[str, bytes]
    changes: Mapping[str, bytes]


def split_training_state(state: Mapping[str, bytes], parents: Mapping[str, bytes]) -> StateChange:
    """Split into the parts stored complete and those stored as the change since the parent's.

    >>> split = split_training_state({"a": b"x", "b": bytes(9_000)}, {"b": bytes(8_999) + b"1"})
    >>> sorted(split.complete), sorted(split.changes), len(split.changes["b"]) < 100
    (['a'], ['b'], True)
    >>> split_training_state({"b": bytes(9_000)}, {"b": b"1" * 9_000}).changes
    {}
    """
    complete, changes = {}, {}
    for name, content in state.items():
        before = parents.get(name, b"")
        difference = _xor(content, before) if _MIN_CHANGE_BYTES <= len(content) == len(before) else b""
        if 2 * difference.count(0) > len(difference):
            changes[name] = zlib.compress(difference, 1)
        else:
            complete[name] = content
    return StateChange(complete, changes)


def merge_training_state(parts: Sequence[StateChange]) -> StateChange:
    """The training state after consecutive commits, oldest first: complete if one of them holds it complete."""
    complete: dict[str, bytes] = {}
    changes: dict[str, bytes] = {}
    for part in parts:
        for name, change in part.changes.items():
            if name in complete:
                complete[name] = _xor(complete[name], zlib.decompress(change))
            elif name in changes:
                changes[name] = zlib.compress(_xor(zlib.decompress(changes[name]), zlib.decompress(change)), 1)
            else:
                changes[name] = change
        for name, content in part.complete.items():
            complete[name] = content
            changes.pop(name, None)
    last = {*parts[-1].complete, *parts[-1].changes}
    return StateChange(
        {name: content for name, content in complete.items() if name in last},
        {name: change for name, change in changes.items() if name in last},
    )


def _xor(one: bytes, other: bytes) -> bytes:
    return np.bitwise_xor(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)).tobytes()
