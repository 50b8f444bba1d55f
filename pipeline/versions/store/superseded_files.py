"""Published files that no replica needs any more: those that end before the shard's last full but one.

A replica starts from the latest full, or from the one before if that is damaged, and applies what follows; a replica
that fell behind both does the same. So a file is retained until two fulls reach further, fulls of a later generation
included; with fewer than two fulls nothing is deleted. Files of former definitions of a part go with those of its
present one. Manifests are deleted before deltas, and both before the ledger's pointers: after a crash anywhere, a
second run completes the deletion.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.files.interface import StoredFolder
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.state import VersionId

_FILE = re.compile(
    r"(?:.*/)?(g\d+/s\d+-of-\d+)/\.?(?:full|incremental|reverse)-\d+-(\d+)\.(?:json|delta)(?:\.\d+\.temporary)?"
)
"""A published file, complete or temporary: its folder and `to_sequence`."""


@dataclass(frozen=True)
class SupersededFiles:
    """Files to delete.

    Attributes:
        before: the version of the last full but one; files of earlier versions are superseded.
        paths: the superseded files, manifests first.
    """

    before: VersionId
    paths: tuple[Path, ...]


def plan_superseded(paths: Iterable[Path], former: Iterable[Path] = ()) -> SupersededFiles | None:
    """One shard's superseded files, deltas without a manifest included; None if there are fewer than two fulls. Pure.

    `former` are files of former definitions: no full among them counts.

    >>> names = "full-0-2", "incremental-2-4", "full-0-5", "incremental-5-7", "full-0-9"
    >>> plan = plan_superseded([Path(f"g0/s0-of-1/{name}.json") for name in names])
    >>> str(plan.before), [path.stem for path in plan.paths]
    ('g0/s0-of-1/5', ['full-0-2', 'incremental-2-4'])
    """
    versions = {path: id for path in paths if (id := _version_of(path)) is not None}
    fulls = sorted(id for path, id in versions.items() if path.match("full-*.json"))
    if len(fulls) < 2:
        return None
    versions |= {path: id for path in former if (id := _version_of(path)) is not None}
    superseded = [path for path, id in versions.items() if id < fulls[-2]]
    return SupersededFiles(fulls[-2], tuple(sorted(superseded, key=lambda path: (path.suffix != ".json", path))))


def drop_superseded(folder: StoredFolder, ledger: Ledger, shard: int, shards: int, part: str | None = None) -> None:
    """Delete a shard's superseded files below the published folder, then their pointers in the ledger.

    With the folder `part`, the files of that part; the pointers then go with those of the whole model.
    """
    names = rf"g\d+/s{shard}-of-{shards}/[^/]+"
    place, of_name = ("", None) if part is None else (f"parts/{part}/", f"parts/{part.partition('/')[0]}/[^/]+/")
    listed = [name for name, _ in folder.list()]
    own = [name for name in listed if re.fullmatch(re.escape(place) + names, name)]
    former = [name for name in listed if of_name and re.fullmatch(of_name + names, name) and name not in own]
    plan = plan_superseded(map(Path, own), map(Path, former))
    if plan is None:
        return
    for path in plan.paths:
        (folder / path.as_posix()).delete()
    if part is None:
        ledger.published.remove_before(plan.before)


def _version_of(path: Path) -> VersionId | None:
    parts = _FILE.fullmatch(path.as_posix())
    return VersionId.parse(f"{parts[1]}/{parts[2]}") if parts else None
