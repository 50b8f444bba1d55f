"""A version whose file is durable, before the ledger records it; and what the ledger then holds of it."""

from dataclasses import dataclass

from pipeline.formats.container import WrittenFile
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.state import Commit, VersionSummary


@dataclass(frozen=True)
class StagedVersion:
    """A version whose file is durable but which CURRENT does not include. `path` is relative to the versions folder."""

    commit: Commit
    path: str
    file: WrittenFile

    def summary(self, last_at_ms: int, now_ms: int) -> VersionSummary:
        """What the ledger holds of it: `last_at_ms` is that of its parent at least, `now_ms` the wall time."""
        commit = self.commit
        return VersionSummary(
            id=commit.id,
            parent=commit.parent,
            epoch=commit.epoch,
            path=self.path,
            file_digest=self.file.digest,
            touched_path=None,
            touched_digest=None,
            offset=commit.offset,
            row=commit.row,
            first_at_ms=commit.first_at_ms,
            last_at_ms=last_at_ms,
            digest=commit.digest,
            served_digest=commit.served_digest,
            size_bytes=self.file.size_bytes,
            rows_touched=commit.rows_touched,
            samples_seen=commit.samples_seen,
            committed_at_ms=now_ms,
            full=commit.full,
            pinned=False,
        )


def own_file(version: VersionSummary) -> ChangeFile:
    """The file of changes that a version was committed with. Of a version whose parent is still that of its commit."""
    after = None if version.full else version.parent
    return ChangeFile(after, version.id, version.path, WrittenFile(version.size_bytes, version.file_digest))
