"""A delta that has been verified against a shard and can be applied without failing.

Staging resolves handles and computes the served digest after the delta before any reader can see a changed row.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.errors import DeltaError, InputError
from pipeline.versions.deltas.delta import Delta, FieldDelta
from pipeline.versions.deltas.served_view import ServedView, StagedRows


@dataclass(frozen=True)
class StagedField:
    """The change of one table.

    Attributes:
        view: for a full snapshot a new view, already filled; otherwise the current view, not changed yet.
        digest: digest of the view once the change is applied.
        rows: what is to be applied to `view`; None for a full snapshot.
    """

    view: ServedView
    digest: int
    rows: StagedRows | None = None

    def switch(self) -> ServedView:
        """Apply the change and return the view of the table."""
        if self.rows is not None:
            self.view.apply(self.rows)
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
    owners, in_use = view.keys_of(change.new_handles)
    clash = in_use & (owners != change.new_keys) & ~np.isin(owners, change.removed)
    if clash.any():
        raise DeltaError(
            f"{context}: {int(clash.sum())} new keys have handles in use, the first is {change.new_handles[clash][0]}"
        )
    try:
        rows = view.stage(change.rows)
    except InputError as failure:
        raise DeltaError(f"{context}: {failure}") from None
    return StagedField(view, rows.digest, rows)


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
    return StagedField(view, view.digest())
