"""The lineage that a shard commits on: what its versions share, the last of them, and what serving holds of it."""

import json
from collections.abc import Mapping
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
        commits_since_full_version: versions with changes only since the last full one; None if the next is to be full.
        migrating: the next version is the first under a changed configuration or model: serving needs a full snapshot.
    """

    current: VersionId | None = None
    commits_since_full_version: int | None = None
    migrating: bool = False

    def full_version_due(self, full_every_commits: int) -> bool:
        """Whether the next version is written full."""
        since = self.commits_since_full_version
        return since is None or since + 1 >= full_every_commits

    def advance(self, id: VersionId, full_version: bool) -> None:
        """Continue from the version just committed."""
        self.current = id
        since = self.commits_since_full_version
        self.commits_since_full_version = 0 if full_version or since is None else since + 1


@dataclass(frozen=True)
class ServedState:
    """What serving holds at CURRENT.

    Attributes:
        views: the served view of each table.
        next_handles: by table, the next handle to be assigned.
        dense: dense weights.
        price: of a byte.
    """

    views: Mapping[str, ServedView]
    next_handles: Mapping[str, int]
    dense: bytes
    price: Price = field(default_factory=Price)


def identity_in(commit: Commit) -> dict[str, str]:
    """What a version was trained under."""
    identity: dict[str, str] = json.loads(commit.training_state["identity"])
    return identity
