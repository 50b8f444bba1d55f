"""How `springtide versions --bytes` shows what the delta of each version sent, and what serving lost by the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.versions.deltas.delta_sizes import DeltaSizes
from pipeline.versions.deltas.quantizer import PRECISIONS
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore


def bytes_of_versions(store: VersionStore, shard: int) -> list[dict[str, Any]]:
    """A row for each retained version of a shard. Raises DamagedError, VersionError.

    The version after it carries what was measured of a version; so there is nothing yet of CURRENT.
    """
    ids = [summary.id for summary in store.versions(shard)]
    qualities, current = {id: store.quality(id) for id in ids}, store.current(shard)
    measured = {
        store.manifest(id)["parent"]: quality.measured_loss
        for id, quality in qualities.items()
        if quality.measured_loss is not None
    }
    return [_row_of(store, id, current, measured.get(str(id))) for id in ids]


def as_tables(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows in two tables of the same versions, which fit 100 columns: bytes and losses, rows and the gate."""
    return {title: [{name: row[key] for name, key in columns.items()} for row in rows] for title, columns in _TABLES}


_TABLES = (
    ("bytes of deltas", {"version": "version", "delta": "delta_bytes"}
     | {part: f"{part}_bytes" for part in ("weights", "keys", "dense", "header")}
     | {name: name for name in ("predicted_loss", "measured_loss")}),
    ("rows of deltas", {"version": "version"}
     | {name: f"rows_{name}" for name in ("sent", "removed", "withheld")}
     | {f"{bits}_bits": f"rows_{bits}_bits" for bits in PRECISIONS} | {"gate": "gate", "held": "held"}),
)  # fmt: skip
"""By title, the columns of a table and what a row has in each."""


def _row_of(store: VersionStore, id: VersionId, current: VersionId | None, measured: float | None) -> dict[str, Any]:
    sizes, quality = DeltaSizes.of(store.delta(id)), store.quality(id)
    return {
        "version": str(id),
        "current": id == current,
        "delta_bytes": sizes.total,
        "weights_bytes": sizes.weights,
        "keys_bytes": sizes.keys,
        "dense_bytes": sizes.dense,
        "header_bytes": sizes.header,
        "rows_sent": sizes.sent,
        "rows_removed": sizes.removed,
        "rows_withheld": sum(quality.withheld.values()),
        **{f"rows_{bits}_bits": rows for bits, rows in sizes.rows.items()},
        "predicted_loss": quality.predicted_loss,
        "measured_loss": measured,
        "gate": quality.gate,
        "held": quality.held,
    }
