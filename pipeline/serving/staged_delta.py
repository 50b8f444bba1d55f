"""A delta that has been verified against a shard and can be applied without failing.

Staging resolves handles and computes the served digest after the delta before any reader can see a changed row.
"""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.arrays.block import UInt64s
from pipeline.errors import DeltaError, InputError
from pipeline.versions.deltas.delta import Delta, FieldDelta
from pipeline.versions.deltas.served_view import ServedView


@dataclass(frozen=True)
class StagedField:
    """The change of one table.

    Attributes:
        view: for a full snapshot a new view, already filled; otherwise the current view, not changed yet.
        digest: digest of the view once the change is applied.
        keys: [n] keys of the rows in `change`; unused for a full snapshot.
        change: absolute rows and removals to apply to `view`; None for a full snapshot.
    """

    view: ServedView
    digest: int
    keys: UInt64s
    change: FieldDelta | None = None

    def switch(self) -> ServedView:
        """Apply the change and return the view of the table."""
        if self.change is not None:
            handles = np.concatenate([self.change.handles, self.change.new_handles])
            self.view.remove(self.change.removed)
            self.view.put(self.keys, handles, self.change.bits, self.change.payload)
        return self.view


@dataclass(frozen=True)
class StagedDelta:
    """A verified delta and its name, the staged change of every table that the shard holds, the digests of the others,
    the dense weights that the shard holds afterwards, and the digest of those of the complete network."""

    delta: Delta
    name: str
    fields: dict[str, StagedField]
    other_digests: dict[str, int]
    dense: bytes
    dense_digest: bytes


def stage_field(view: ServedView, change: FieldDelta, context: str) -> StagedField:
    """Stage a change of an existing view. Raises DeltaError for unknown handles, handles in use and bad payloads."""
    known, resident = view.keys_of(change.handles)
    if not resident.all():
        missing = change.handles[~resident]
        raise DeltaError(f"{context}: {len(missing)} handles are unknown here, the first is {missing[0]}")
    owners, in_use = view.keys_of(change.new_handles)
    clash = in_use & (owners != change.new_keys) & ~np.isin(owners, change.removed)
    if clash.any():
        raise DeltaError(
            f"{context}: {int(clash.sum())} new keys have handles in use, the first is {change.new_handles[clash][0]}"
        )
    keys = np.concatenate([known, change.new_keys])
    handles = np.concatenate([change.handles, change.new_handles])
    relative = np.concatenate([change.relative, np.zeros(len(change.new_keys), np.bool_)])
    try:
        payload = view.add_stored(keys, change.bits, change.payload, relative)
        digest = view.digest_after(keys, handles, change.bits, payload, change.removed)
    except InputError as failure:
        raise DeltaError(f"{context}: {failure}") from None
    return StagedField(view, digest, keys, replace(change, payload=payload, relative=np.zeros_like(change.relative)))


def stage_full_field(change: FieldDelta, context: str) -> StagedField:
    """Stage the rows of a full snapshot in a new view, while readers use the current one. Raises DeltaError."""
    if len(change.handles):
        raise DeltaError(
            f"{context}: a full has {len(change.handles)} rows without keys. run: springtide publish --level full"
        )
    view = ServedView(change.dim)
    try:
        view.put(change.new_keys, change.new_handles, change.bits, change.payload)
    except InputError as failure:
        raise DeltaError(f"{context}: {failure}") from None
    return StagedField(view, view.digest(), change.new_keys)
