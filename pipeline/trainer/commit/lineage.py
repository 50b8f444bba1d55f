"""The lineage that a shard commits on: what its versions share, the last of them, and what serving holds of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.model.identity import Identity
from pipeline.publish.price.byte_price import Price
from pipeline.versions.deltas.served_view import ServedView
from pipeline.versions.state import Commit, VersionId


@dataclass(frozen=True)
class VersionOrigin:
    """The attributes shared by all versions committed under one epoch of a shard.

    Attributes:
        log_id: id of the samples topic.
        identity: what the versions are trained under.
        serving_digest: of the part of it that serving must share.
    """

    shard: int
    epoch: int
    generation: int
    log_id: str
    identity: Identity
    serving_digest: str


@dataclass
class LineageHead:
    """The last version of the lineage that a shard commits on.

    Attributes:
        current: the version committed last; None before the first.
        replacing: the next version holds every row, because CURRENT's do not all continue in it.
        migrating: the next version is the first under a changed configuration or model: serving needs a full snapshot.
    """

    current: VersionId | None = None
    replacing: bool = False
    migrating: bool = False

    def advance(self, id: VersionId) -> None:
        """Continue from the version just committed."""
        self.current, self.replacing = id, False


@dataclass(frozen=True)
class ServedState:
    """What serving holds at CURRENT.

    Attributes:
        views: reads the served view of each table. Raises DamagedError.
        next_handles: by table, the next handle to be assigned.
        dense: dense weights.
        price: of a byte.
    """

    views: Callable[[], Mapping[str, ServedView]]
    next_handles: Mapping[str, int]
    dense: bytes
    price: Price = field(default_factory=Price)


def identity_in(commit: Commit) -> dict[str, str]:
    """What a version was trained under."""
    identity: dict[str, str] = json.loads(commit.training_state["identity"])
    return identity
