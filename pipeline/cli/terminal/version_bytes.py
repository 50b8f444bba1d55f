"""How `springtide versions --bytes` shows what the delta of each version sent, and what serving lost by the rest."""

from typing import Any

from pipeline.versions.deltas.delta_sizes import DeltaSizes
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
