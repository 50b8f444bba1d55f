"""Admission filters between commits: megabytes of counters of which a commit changes a few, told as what changed.

A change is the exclusive or of two filters of one length, deflated. Changes compose by exclusive or, in any grouping.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.versions.state import Commit

_WORTH_BYTES = 4_096
"""A smaller filter is kept as it is."""


def split_filters(
    filters: Mapping[str, bytes], parents: Mapping[str, bytes]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Split filters into those told whole and those told as changes since the parent's.

    >>> whole, changes = split_filters({"a": b"x", "b": bytes(9_000)}, {"b": bytes(8_999) + b"1"})
    >>> sorted(whole), sorted(changes), len(changes["b"]) < 100
    (['a'], ['b'], True)
    """
    whole, changes = {}, {}
    for name, content in filters.items():
        if len(content) >= _WORTH_BYTES and len(parents.get(name, b"")) == len(content):
            changes[name] = zlib.compress(_xor(content, parents[name]), 1)
        else:
            whole[name] = content
    return whole, changes


def merge_filters(commits: Sequence[Commit]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The newest commit's filters, commits oldest first: whole where one of them has it whole, else as a change."""
    whole: dict[str, bytes] = {}
    changes: dict[str, bytes] = {}
    for commit in commits:
        for name, change in commit.filter_changes.items():
            if name in whole:
                whole[name] = _xor(whole[name], zlib.decompress(change))
            elif name in changes:
                changes[name] = zlib.compress(_xor(zlib.decompress(changes[name]), zlib.decompress(change)), 1)
            else:
                changes[name] = change
        for name, content in commit.filters.items():
            whole[name] = content
            changes.pop(name, None)
    last = {*commits[-1].filters, *commits[-1].filter_changes}
    return {n: c for n, c in whole.items() if n in last}, {n: c for n, c in changes.items() if n in last}


def _xor(one: bytes, other: bytes) -> bytes:
    return np.bitwise_xor(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)).tobytes()
