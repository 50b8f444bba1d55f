"""Restores a lost or damaged ledger: its backup, and the versions committed since, from their files.

The backup holds all but the commits since the last other change. Those follow CURRENT one by one in the latest
generation, and every file holds what the ledger records of a version. A version whose file is complete and whose commit
was interrupted is recorded too: it is a function of the samples log like every other one.
"""

import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, VersionError
from pipeline.files.atomic_file import write_atomically
from pipeline.formats.container import Container, WrittenFile
from pipeline.versions.ledger.backup import read_backup
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.ledger.version_rows import StagedVersion
from pipeline.versions.state import VersionId
from pipeline.versions.store.files import VERSION, read_commit

_FILE = re.compile(r"(\d{12})\.(\d+)\.version")
_PARTS = ("", "-wal", "-shm")


@dataclass(frozen=True)
class RestoredLedger:
    """What was restored: the generation, CURRENT by shard, how many versions the backup lacked, and quarantines."""

    generation: int
    current: tuple[str, ...]
    versions_found: int
    quarantines: int
    set_aside: str | None


def restore_ledger(project: Project) -> RestoredLedger:
    """Restore the project's ledger. No trainer may run.

    Raises:
        VersionError: the ledger is intact.
        DamagedError: the backup is missing or damaged.
    """
    path = project.versions / "ledger.sqlite"
    refuse_intact(project)
    content = read_backup(project.versions)
    set_aside = _set_aside(path)
    write_atomically(path, [content])
    with closing(Ledger(path, project.clock)) as ledger:
        found = sum(_adopt_versions(project, ledger, shard) for shard in range(project.config.logs.shards))
        current = (str(ledger.current(shard)) for shard in ledger.shards())
        return RestoredLedger(ledger.generation(), tuple(current), found, len(ledger.quarantines.all()), set_aside)


def refuse_intact(project: Project) -> None:
    """Raise VersionError if the ledger needs no restoring."""
    path = project.versions / "ledger.sqlite"
    try:
        Ledger(path, project.clock).close()
    except DamagedError:
        return
    raise VersionError(f"ledger {path} is intact. hint: there is nothing to restore")


def _set_aside(path: Path) -> str | None:
    """Rename a damaged ledger to a free name; returns that name."""
    if not path.exists():
        for part in _PARTS:
            path.with_name(path.name + part).unlink(missing_ok=True)
        return None
    number = 1
    while (free := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for part in _PARTS:
        if (source := path.with_name(path.name + part)).exists():
            source.rename(free.with_name(free.name + part))
    return free.name


def _adopt_versions(project: Project, ledger: Ledger, shard: int) -> int:
    """Record the versions that follow CURRENT in the latest generation; returns how many."""
    if any(record.state == "planned" for record in ledger.unfinished_rollbacks()):
        return 0  # its versions are not CURRENT yet: springtide rollback --finish
    count = 0
    while (staged := _next_version(project, ledger, shard)) is not None:
        ledger.adopt(staged)
        count += 1
    return count


def _next_version(project: Project, ledger: Ledger, shard: int) -> StagedVersion | None:
    """The version whose parent is CURRENT, of the latest writer; None if there is none."""
    current = ledger.current(shard)
    sequence = current.sequence + 1 if current else 1
    id = VersionId(ledger.generation(), shard, project.config.logs.shards, sequence)
    files = {file.base: file for _, file in project.version_files.folder(id.folder).list()}
    by_epoch = {
        int(match[2]): files[match[0]] for match in map(_FILE.fullmatch, files) if match and int(match[1]) == sequence
    }
    for epoch in sorted(by_epoch, reverse=True):
        stored = by_epoch[epoch]
        commit = read_commit(stored)
        if (commit.id, commit.parent) == (id, current):
            with Container.open(stored, VERSION) as file:
                written = WrittenFile(file.size_bytes, file.digest)
            return StagedVersion(commit, f"{id.folder}/{stored.base}", written)
    return None
