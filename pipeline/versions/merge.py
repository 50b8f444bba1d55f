"""The net of several commits of one lineage: the last operation per key wins, as in a log-structured store.

Pure; arrays in, arrays out. Netting is associative, so any grouping of a chain gives the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.versions.deltas.quantizer import payload_offsets
from pipeline.versions.filters import merge_filters
from pipeline.versions.state import Commit, FieldChange, ServedEntries, UInt8s, UInt64s, union_keys

Int64s = npt.NDArray[np.int64]

_GATHER_ROWS = 1 << 18
"""Entries gathered at a time: bounds the index memory to some tens of megabytes."""


@dataclass(frozen=True)
class MergedKeys:
    """Which operation decides each key.

    Attributes:
        keys: [n] uint64 sorted, keys that are there afterwards.
        source: [n] int64, index of the deciding row among all steps' rows, one step after another.
        removed: [r] uint64 sorted, keys that are not.
    """

    keys: UInt64s
    source: Int64s
    removed: UInt64s


def merge_keys(steps: Sequence[tuple[UInt64s, UInt64s]]) -> MergedKeys:
    """Net of steps (removed keys, then put keys), oldest first.

    >>> a, b = np.array([1, 2], np.uint64), np.array([2, 3], np.uint64)
    >>> merge_keys([(a[:0], a), (a[:1], b)]).keys.tolist()
    [2, 3]
    """
    operations: list[UInt64s] = []
    sources: list[Int64s] = []
    rows = 0
    for removed, put in steps:
        operations += [removed, put]
        sources += [np.full(len(removed), -1, np.int64), np.arange(rows, rows + len(put), dtype=np.int64)]
        rows += len(put)
    newest_first = np.concatenate([*operations, np.empty(0, np.uint64)])[::-1]
    keys, first = np.unique(newest_first, return_index=True)
    source = np.concatenate([*sources, np.empty(0, np.int64)])[::-1][first]
    there = source >= 0
    return MergedKeys(keys[there], source[there], keys[~there])


def gather_payload(payload: UInt8s, bits: UInt8s, dim: int, index: Int64s) -> UInt8s:
    """The payload of the entries at `index`, in that order.

    Args:
        payload: uint8, all entries' bytes one after another.
        bits: [n] uint8, their precisions.
        dim: weights per row.
        index: [m] int64 into the entries.
    """
    starts = payload_offsets(bits, dim)
    sizes = np.diff(starts)
    parts = [np.empty(0, np.uint8)]
    for begin in range(0, len(index), _GATHER_ROWS):
        chosen = index[begin : begin + _GATHER_ROWS]
        lengths = sizes[chosen]
        ends = np.cumsum(lengths)
        shift = np.repeat(starts[chosen] - (ends - lengths), lengths)
        parts.append(payload[shift + np.arange(len(shift))])
    return np.concatenate(parts)


def merge_served(steps: Sequence[tuple[ServedEntries, UInt64s]]) -> tuple[ServedEntries, UInt64s]:
    """Net of served changes (entries, tombstones), oldest first: entries and tombstones, both sorted by key."""
    net = merge_keys([(removed, entries.keys) for entries, removed in steps])
    dim = steps[0][0].dim
    bits = np.concatenate([entries.bits for entries, _ in steps])
    payload = np.concatenate([entries.payload for entries, _ in steps])
    handles = np.concatenate([entries.handles for entries, _ in steps])
    chosen = gather_payload(payload, bits, dim, net.source)
    return ServedEntries(dim, net.keys, handles[net.source], bits[net.source], chosen), net.removed


def merge_changes(changes: Sequence[FieldChange], full: bool) -> FieldChange:
    """Net of one field's changes, oldest first; `full` says that the first holds every row, and so will the net."""
    net = merge_keys([(change.removed, change.keys) for change in changes])
    rows = np.concatenate([change.rows for change in changes])[net.source]
    served, served_removed = merge_served([(served_of(change), change.served_removed) for change in changes])
    touched = union_keys([change.touched for change in changes]) if full else None
    return FieldChange(
        dim=changes[0].dim,
        keys=net.keys,
        rows=rows,
        removed=net.removed,
        served_keys=served.keys,
        served_handles=served.handles,
        served_bits=served.bits,
        served_payload=served.payload,
        served_removed=served_removed,
        served_touched=touched,
    )


def merge_commits(commits: Sequence[Commit]) -> Commit:
    """The newest commit, told as what changed since the oldest one's parent; full if one of them is, or has no parent.

    Where one is full, what lies before it no longer matters, and its touched keys are not in the net. A field that an
    older commit lacks (it came with a migration) starts empty there.
    """
    last = commits[-1]
    base = max((i for i, commit in enumerate(commits) if commit.full or commit.parent is None), default=0)
    counted = commits[base:]
    full = counted[0].full or counted[0].parent is None
    fields = {name: merge_changes([c.fields[name] for c in counted if name in c.fields], full) for name in last.fields}
    first_at_ms = min(commit.first_at_ms for commit in commits)
    filters, changes = merge_filters(counted)
    return replace(
        last,
        parent=commits[0].parent,
        first_at_ms=first_at_ms,
        fields=fields,
        filters=filters,
        filter_changes=changes,
        full=full,
    )


def served_of(change: FieldChange) -> ServedEntries:
    """The served entries a change carries, in its order."""
    return ServedEntries(
        change.dim, change.served_keys, change.served_handles, change.served_bits, change.served_payload
    )
