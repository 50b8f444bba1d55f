"""Training state in commits: admission counters take megabytes and change little, so commits store the change.

A change is the exclusive or of two parts of the state of one length, deflated. Exclusive or is associative, so changes
merge in any grouping.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.versions.state import Commit

_MIN_CHANGE_BYTES = 4_096
"""Smaller parts are stored complete."""


def split_training_state(
    state: Mapping[str, bytes], parents: Mapping[str, bytes]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Split into the parts stored complete and those stored as the change since the parent's.

    >>> complete, changes = split_training_state({"a": b"x", "b": bytes(9_000)}, {"b": bytes(8_999) + b"1"})
    >>> sorted(complete), sorted(changes), len(changes["b"]) < 100
    (['a'], ['b'], True)
    """
    complete, changes = {}, {}
    for name, content in state.items():
        if len(content) >= _MIN_CHANGE_BYTES and len(parents.get(name, b"")) == len(content):
            changes[name] = zlib.compress(_xor(content, parents[name]), 1)
        else:
            complete[name] = content
    return complete, changes


def merge_training_state(commits: Sequence[Commit]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The last commit's training state, complete if one of the commits holds it complete, else as changes.

    Args:
        commits: consecutive commits, oldest first.
    """
    complete: dict[str, bytes] = {}
    changes: dict[str, bytes] = {}
    for commit in commits:
        for name, change in commit.training_state_changes.items():
            if name in complete:
                complete[name] = _xor(complete[name], zlib.decompress(change))
            elif name in changes:
                changes[name] = zlib.compress(_xor(zlib.decompress(changes[name]), zlib.decompress(change)), 1)
            else:
                changes[name] = change
        for name, content in commit.training_state.items():
            complete[name] = content
            changes.pop(name, None)
    last = {*commits[-1].training_state, *commits[-1].training_state_changes}
    return {n: c for n, c in complete.items() if n in last}, {n: c for n, c in changes.items() if n in last}


def _xor(one: bytes, other: bytes) -> bytes:
    return np.bitwise_xor(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)).tobytes()
