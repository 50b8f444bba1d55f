"""What the ledger holds of one rollback. Records are never deleted: together they are the audit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.versions.state import VersionId


@dataclass(frozen=True)
class RollbackRecord:
    """One rollback as the ledger stores it.

    Attributes:
        id: the ledger's number.
        generation: the generation it created.
        state: planned (CURRENT has not moved), switched (CURRENT has moved, not announced), done, or abandoned (a
            target was dropped before the trainers were fenced; nothing was changed).
        targets: by shard, the version to return to.
        currents: by shard, CURRENT when its trainer was fenced; empty until all are.
        epochs: by shard, the epoch that fences the trainers; empty until all are.
        quarantine: id of the quarantine it added.
        document: the plan as the operator saw it; for the audit.
        audit: what was done.
        begun_at_ms: wall time.
    """

    id: int
    generation: int
    state: str
    targets: Mapping[int, VersionId]
    currents: Mapping[int, VersionId]
    epochs: Mapping[int, int]
    quarantine: int
    document: Mapping[str, Any]
    audit: Mapping[str, Any]
    begun_at_ms: int
