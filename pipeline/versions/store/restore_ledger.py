"""Restores a lost or damaged ledger: what can be read of it, its backups, and later versions from their files.

A backup holds all but the commits since the last other record. Those follow CURRENT one by one in the latest
generation, and every file holds what the ledger records of a version. A version whose file is complete and whose commit
was interrupted is recorded too: it is a function of the samples log like every other one.
"""

import re
from contextlib import closing
from dataclasses import dataclass

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, VersionError
from pipeline.formats.container import Container, WrittenFile
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.ledger.staged_version import StagedVersion
from pipeline.versions.ledger.topic import LedgerTopic
from pipeline.versions.state import VersionId
from pipeline.versions.store.files import VERSION, read_commit
from pipeline.versions.store.version_store import VersionStore, backup_of

_FILE = re.compile(r"(\d{12})\.(\d+)\.version")


@dataclass(frozen=True)
class RestoredLedger:
    """What was restored: the generation, CURRENT by shard, how many versions the backup lacked, and quarantines."""

    generation: int
    current: tuple[str, ...]
    versions_found: int
    quarantines: int


def restore_ledger(project: Project) -> RestoredLedger:
    """Restore the project's ledger in a new topic. No trainer may run.

    Raises:
        VersionError: the ledger is intact.
        DamagedError: a backup that is needed is damaged.
    """
    config = project.config
    with closing(open_log(project)) as log:
        refuse_intact(project, log)
        backup = backup_of(project)
        LedgerTopic(log, config.topics.ledger, config.logs.shards, backup).restore()
        ledger = Ledger(log, config.topics.ledger, config.logs.shards, project.clock, config.name, backup)
        found = sum(_adopt_versions(project, ledger, shard) for shard in range(config.logs.shards))
        current = (str(ledger.current(shard)) for shard in ledger.shards())
        return RestoredLedger(ledger.generation(), tuple(current), found, len(ledger.quarantines.all()))


def refuse_intact(project: Project, log: Log) -> None:
    """Raise VersionError if the ledger needs no restoring."""
    try:
        with closing(VersionStore(project, log)) as store:
            for shard in range(project.config.logs.shards):
                store.versions(shard)
    except DamagedError:
        return
    raise VersionError(f"the ledger in topic {project.config.topics.ledger} is intact. hint: nothing is to restore")


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
