"""What serving would hold after a delta that was not prepared."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.arrays.ascending import find_keys
from pipeline.arrays.types import Float32s, UInt64s
from pipeline.versions.deltas.served_view import ServedView


@dataclass(frozen=True)
class Preview:
    """What serving would hold: `views` with other rows, valid until the publisher prepares the next delta.

    Attributes:
        sent: by table, ascending keys [n] and their weights [n, dim].
        dense: the dense weights.
    """

    views: Mapping[str, ServedView]
    sent: Mapping[str, tuple[UInt64s, Float32s]]
    dense: bytes

    def lookup(self, table: str, keys: UInt64s) -> Float32s:
        """[m, dim] the rows of keys [m]; zeros for a missing key."""
        rows, (known, weights) = self.views[table].decode(keys), self.sent[table]
        places, sent = find_keys(keys, known)
        rows[sent] = weights[places[sent]]
        return rows
