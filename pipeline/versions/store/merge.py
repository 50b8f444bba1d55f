"""Merges consecutive commits of a lineage into one: the last operation per key wins, as in a log-structured store.

Pure: arrays in, arrays out. Merging is associative, so any grouping of a chain gives the same result.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.arrays.types import Int64s, UInt8s, UInt64s
from pipeline.versions.deltas.quantizer import payload_offsets
from pipeline.versions.state import Commit, FieldChange, ServedEntries, union_keys
from pipeline.versions.store.training_state import merge_training_state

_GATHER_ROWS = 1 << 18
"""Entries gathered at a time: bounds the index memory to some tens of megabytes."""


@dataclass(frozen=True)
class MergedKeys:
    """The deciding operation of each key.

    Attributes:
        keys: [n] uint64 sorted, keys that exist afterwards.
        source: [n] int64, index of the deciding row among all changes' rows, concatenated.
        removed: [r] uint64 sorted, keys that do not.
    """

    keys: UInt64s
    source: Int64s
    removed: UInt64s


def merge_keys(changes: Sequence[tuple[UInt64s, UInt64s]]) -> MergedKeys:
    """Merge changes of the form (removed keys, then put keys), oldest first.

    >>> a, b = np.array([1, 2], np.uint64), np.array([2, 3], np.uint64)
    >>> merge_keys([(a[:0], a), (a[:1], b)]).keys.tolist()
    [2, 3]
    """
    operations: list[UInt64s] = []
    sources: list[Int64s] = []
    rows = 0
    for removed, put in changes:
        operations += [removed, put]
        sources += [np.full(len(removed), -1, np.int64), np.arange(rows, rows + len(put), dtype=np.int64)]
        rows += len(put)
    latest_first = np.concatenate([*operations, np.empty(0, np.uint64)])[::-1]
    keys, first = np.unique(latest_first, return_index=True)
    source = np.concatenate([*sources, np.empty(0, np.int64)])[::-1][first]
    exists = source >= 0
    return MergedKeys(keys[exists], source[exists], keys[~exists])


def gather_payload(payload: UInt8s, bits: UInt8s, dim: int, index: Int64s) -> UInt8s:
    """The payloads of the entries at `index`, concatenated in that order.

    Args:
        payload: uint8, the payloads of all entries, concatenated.
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


def merge_served(changes: Sequence[tuple[ServedEntries, UInt64s]]) -> tuple[ServedEntries, UInt64s]:
    """Merge served changes (entries, tombstones), oldest first, into entries and tombstones sorted by key."""
    merged = merge_keys([(removed, entries.keys) for entries, removed in changes])
    dim = changes[0][0].dim
    bits = np.concatenate([entries.bits for entries, _ in changes])
    payload = np.concatenate([entries.payload for entries, _ in changes])
    handles = np.concatenate([entries.handles for entries, _ in changes])
    gathered = gather_payload(payload, bits, dim, merged.source)
    entries = ServedEntries(dim, merged.keys, handles[merged.source], bits[merged.source], gathered)
    return entries, merged.removed


def merge_changes(changes: Sequence[FieldChange], full: bool) -> FieldChange:
    """Merge the changes of one table, oldest first. `full`: the first holds every row, so the result does too."""
    merged = merge_keys([(change.removed, change.keys) for change in changes])
    rows = np.concatenate([change.rows for change in changes])[merged.source]
    served, served_removed = merge_served([(served_of(change), change.served_removed) for change in changes])
    touched = union_keys([change.touched for change in changes]) if full else None
    return FieldChange(
        dim=changes[0].dim,
        keys=merged.keys,
        rows=rows,
        removed=merged.removed,
        served_keys=served.keys,
        served_handles=served.handles,
        served_bits=served.bits,
        served_payload=served.payload,
        served_removed=served_removed,
        served_touched=touched,
    )


def merge_commits(commits: Sequence[Commit]) -> Commit:
    """The last commit as the change since the first one's parent; full if one of them is full or has no parent.

    Commits before the last full one have no effect, and their touched keys are not in the result. A table that an
    earlier commit lacks, because a migration added it, is empty there.
    """
    last = commits[-1]
    base = max((i for i, commit in enumerate(commits) if commit.full or commit.parent is None), default=0)
    effective = commits[base:]
    full = effective[0].full or effective[0].parent is None
    fields = {
        name: merge_changes([c.fields[name] for c in effective if name in c.fields], full) for name in last.fields
    }
    training_state, changes = merge_training_state(effective)
    return replace(
        last,
        parent=commits[0].parent,
        first_at_ms=min(commit.first_at_ms for commit in commits),
        fields=fields,
        training_state=training_state,
        training_state_changes=changes,
        full=full,
    )


def served_of(change: FieldChange) -> ServedEntries:
    """The served entries of a change, in its order."""
    return ServedEntries(
        change.dim, change.served_keys, change.served_handles, change.served_bits, change.served_payload
    )
