"""The deltas of the levels incremental and full: the merge of many realtime deltas, and a version's complete view.

Neither quantizes again: rows are the bytes of the served view, so every path to a version ends in the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pipeline.arrays.types import UInt64s
from pipeline.errors import DeltaError
from pipeline.publish.field_delta import served_field_delta
from pipeline.versions.deltas.delta import Delta, FieldDelta
from pipeline.versions.deltas.served_view import ServedView


@dataclass(frozen=True)
class ServedVersion:
    """The version to publish: its own delta with complete dense weights, and by table what serving holds at it."""

    delta: Delta
    views: Mapping[str, ServedView]


def full_delta(version: ServedVersion) -> Delta:
    """The complete served view with handles and dense weights. `first_at_ms` is 0: it includes all events so far."""
    fields = {}
    for name, view in version.views.items():
        keys = view.keys()
        fields[name] = served_field_delta(view, keys, np.ones(len(keys), np.bool_), np.empty(0, np.uint64))
    return replace(
        version.delta,
        level="full",
        base_generation=version.delta.generation,
        from_sequence=0,
        first_at_ms=0,
        before=None,
        fields=fields,
    )


def merge_deltas(deltas: Sequence[Delta], version: ServedVersion) -> Delta:
    """Merge consecutive realtime deltas that end at `version`: the last operation per key, tombstones included.

    The result applies to every version from the start of the first to the end of the last: each row is the absolute
    value that serving holds at the end, and so are the dense weights.

    Raises:
        DeltaError: the deltas are not consecutive, or do not end at `version`.
    """
    _check_chain(deltas, version.delta)
    fields = {
        name: _merge_field(view, [d.fields[name] for d in deltas if name in d.fields])
        for name, view in version.views.items()
    }
    return replace(
        deltas[-1],
        level="incremental",
        from_sequence=deltas[0].from_sequence,
        first_at_ms=min(d.first_at_ms for d in deltas),
        last_at_ms=max(d.last_at_ms for d in deltas),
        before=deltas[0].before,
        fields=fields,
        dense=version.delta.dense,
    )


def _merge_field(view: ServedView, changes: Sequence[FieldDelta]) -> FieldDelta:
    """Every key that a change touched: as a row if the view holds it, and as a tombstone if it was removed.

    A handle unknown to the view belongs to a key that was removed later, which has a tombstone.
    """
    none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
    introduced: UInt64s = np.unique(np.concatenate([none64, *(c.new_keys for c in changes)]))
    removed = np.unique(np.concatenate([none64, *(c.removed for c in changes)]))
    known, exists = view.keys_of(np.unique(np.concatenate([none32, *(c.handles for c in changes)])))
    keys = np.union1d(known[exists], introduced)
    keys = keys[view.bits(keys) > 0]
    return served_field_delta(view, keys, np.isin(keys, introduced), removed)


def _check_chain(deltas: Sequence[Delta], last: Delta) -> None:
    if not deltas:
        raise DeltaError(f"no delta leads to version {last.to_version}. hint: pass its deltas")
    for before, after in pairwise(deltas):
        if (after.base_generation, after.from_sequence) != (before.generation, before.to_sequence):
            raise DeltaError(f"{after} does not follow {before}. run: springtide versions")
    for delta in deltas:
        if delta.level != "realtime" or delta.generation != last.generation:
            raise DeltaError(f"{delta} is no realtime delta of generation {last.generation}. hint: publish a full")
    if deltas[-1].to_sequence != last.to_sequence:
        raise DeltaError(f"{deltas[-1]} does not end at version {last.to_version}. run: springtide versions")
