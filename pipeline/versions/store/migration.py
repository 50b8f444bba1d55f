"""Moves the state of a project to where its configuration says: the ledger into its topic, files into the store.

The ledger of releases before was a SQLite file, `state/versions/ledger.sqlite`; it is renamed once its partitions hold
what it held. Files are copied from the state folder to `[files] url` and compared by their SHA-256; what was copied
before is not copied again. Every step may be repeated after a crash. No trainer may run.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError
from pipeline.files.folder import FolderFiles
from pipeline.files.interface import StoredFile
from pipeline.logs.open import open_log
from pipeline.versions.ledger.former_ledger import read_former_ledger
from pipeline.versions.ledger.topic import LedgerTopic
from pipeline.versions.store.version_store import backup_of, former_ledger

_FOLDERS = ("versions", "published", "halted")
_SUFFIXES = (".version", ".merged", ".touched", ".keys", ".backup", ".json", ".delta", ".parquet", ".record")
_PIECE_BYTES = 16 << 20


@dataclass(frozen=True)
class Migration:
    """What is to be moved, or was.

    Attributes:
        ledger: the former ledger, if there is one.
        files: names of the files that the store lacks or has otherwise.
        bytes: of these.
    """

    ledger: str | None
    files: tuple[str, ...]
    bytes: int


def plan_migration(project: Project) -> Migration:
    """What `migrate` would move now. Raises FilesError."""
    missing = [stored for stored in _local_files(project) if not _is_stored(project, stored)]
    ledger = former_ledger(project)
    size_bytes = sum(stored.describe().size_bytes for stored in missing)
    return Migration(str(ledger) if ledger else None, tuple(stored.name for stored in missing), size_bytes)


def migrate(project: Project) -> Migration:
    """Move it. Returns what was moved.

    Raises:
        VersionError: the store cannot be written, or the topic of the ledger holds another one.
        DamagedError: the former ledger is damaged, or a copy is not what was copied.
    """
    planned = plan_migration(project)
    for name in planned.files:
        _copy(StoredFile(FolderFiles(project.state), name), StoredFile(project.files, name))
    if planned.ledger is not None:
        _migrate_ledger(project, Path(planned.ledger))
    return planned


def _migrate_ledger(project: Project, path: Path) -> None:
    snapshots = read_former_ledger(path, project.config.logs.shards)
    with closing(open_log(project)) as log:
        LedgerTopic(log, project.config.topics.ledger, project.config.logs.shards, backup_of(project)).begin(snapshots)
    for suffix in ("-wal", "-shm", ""):
        if (part := path.with_name(path.name + suffix)).exists():
            part.rename(part.with_name(f"migrated-{part.name}"))


def _local_files(project: Project) -> Iterator[StoredFile]:
    """The files of the state folder that belong into the store; none without a store."""
    if project.config.files.url is None:
        return
    files = FolderFiles(project.state)
    for folder in _FOLDERS:
        for listed in files.list(folder):
            stored = StoredFile(files, listed.name)
            if not stored.base.startswith(".") and stored.base.endswith(_SUFFIXES):
                yield stored


def _is_stored(project: Project, stored: StoredFile) -> bool:
    copied = StoredFile(project.files, stored.name)
    try:
        if copied.describe().size_bytes != stored.describe().size_bytes:
            return False
        return _sha256(copied) == _sha256(stored)
    except FileNotFoundError:
        return False


def _copy(source: StoredFile, copy: StoredFile) -> None:
    with source.open() as opened:
        new = copy.create()
        try:
            for offset in range(0, opened.size_bytes, _PIECE_BYTES):
                new.write(memoryview(opened.read(offset, _PIECE_BYTES)))
            new.complete()
        finally:
            new.discard()
    if _sha256(copy) != _sha256(source):
        raise DamagedError(f"{copy} is not what {source} holds. run: springtide migrate-state")


def _sha256(stored: StoredFile) -> str:
    sha = hashlib.sha256()
    with stored.open() as opened:
        for offset in range(0, opened.size_bytes, _PIECE_BYTES):
            sha.update(opened.read(offset, _PIECE_BYTES))
    return sha.hexdigest()
