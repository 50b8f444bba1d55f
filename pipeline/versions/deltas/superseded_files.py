"""Published files that no replica can need any more: those that lead less far than their shard's newest full but one.

A replica starts from the newest full, or from the one before where that is damaged, and goes on with what follows; one
that fell behind both does the same. So a file stays until two fulls lead further, those of a newer generation too;
without two fulls nothing goes. Manifests go before deltas, both before the ledger's marks: killed anywhere, doing it
again finishes it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.state import VersionId

_FILE = re.compile(
    r"(?:.*/)?(g\d+/s\d+-of-\d+)/\.?(?:full|incremental|reverse)-\d+-(\d+)\.(?:json|delta)(?:\.\d+\.temporary)?"
)
"""A published file, whole or temporary: its folder and the sequence it leads to."""


@dataclass(frozen=True)
class Superseded:
    """What dropping them means.

    Attributes:
        before: where the newest full but one leads; whatever leads less far goes.
        paths: the files that go, manifests first.
    """

    before: VersionId
    paths: tuple[Path, ...]


def plan_superseded(paths: Iterable[Path]) -> Superseded | None:
    """Which of one shard's files go, deltas without a manifest too; None where there are no two fulls. Pure.

    >>> names = "full-0-2", "incremental-2-4", "full-0-5", "incremental-5-7", "full-0-9"
    >>> plan = plan_superseded([Path(f"g0/s0-of-1/{name}.json") for name in names])
    >>> str(plan.before), [path.stem for path in plan.paths]
    ('g0/s0-of-1/5', ['full-0-2', 'incremental-2-4'])
    """
    leads_to = {path: id for path in paths if (id := _leads_to(path)) is not None}
    fulls = sorted(id for path, id in leads_to.items() if path.match("full-*.json"))
    if len(fulls) < 2:
        return None
    less_far = [path for path, id in leads_to.items() if id < fulls[-2]]
    return Superseded(fulls[-2], tuple(sorted(less_far, key=lambda path: (path.suffix != ".json", path))))


def drop_superseded(folder: Path, ledger: Ledger, shard: int, shards: int) -> None:
    """Delete what no replica of a shard can need below `folder`, and forget that it was published."""
    plan = plan_superseded(folder.glob(f"g*/s{shard}-of-{shards}/*"))
    if plan is None:
        return
    for path in plan.paths:
        path.unlink(missing_ok=True)
    ledger.published.remove_before(plan.before)


def _leads_to(path: Path) -> VersionId | None:
    parts = _FILE.fullmatch(path.as_posix())
    return VersionId.parse(f"{parts[1]}/{parts[2]}") if parts else None
