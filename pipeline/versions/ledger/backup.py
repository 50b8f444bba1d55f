"""Backups of the ledger, beside the files of versions: the state of each partition after every record but commits.

Version files describe themselves, so commits after the backup are found again (`store/restore_ledger.py`). Quarantines,
rollbacks, pins and halts stand nowhere else.
"""

from dataclasses import dataclass

from pipeline.errors import DamagedError
from pipeline.files.interface import StoredFile, StoredFolder
from pipeline.formats.container import Container, Kind, write_container
from pipeline.versions.ledger.records import LedgerRecord, encode_record, parse_record

_BACKUP = Kind(b"ledg", "restore the file from a copy of its folder", format=4)


@dataclass(frozen=True)
class LedgerBackup:
    """The backups of a project, a file for each partition in `folder`."""

    folder: StoredFolder

    def write(self, partition: int, ends_at: int, snapshot: LedgerRecord) -> None:
        """Replace the backup of a partition, which ends at the offset `ends_at`. Raises VersionError."""
        header, sections = {"ends_at": ends_at}, {"snapshot": encode_record(snapshot)}
        write_container(self._file(partition), _BACKUP, header, sections)

    def exists(self, partition: int) -> bool:
        """Whether there is one."""
        try:
            self._file(partition).describe()
        except FileNotFoundError:
            return False
        return True

    def find(self, partition: int) -> tuple[int, LedgerRecord] | None:
        """The offset at which a partition ended, and its snapshot; None without a backup. Raises DamagedError."""
        try:
            with Container.open(self._file(partition), _BACKUP) as file, file.parsing():
                return int(file.header["ends_at"]), parse_record(file.section("snapshot"), file.name)
        except FileNotFoundError:
            return None

    def read(self, partition: int) -> tuple[int, LedgerRecord]:
        """As `find`; a missing backup raises DamagedError, too."""
        found = self.find(partition)
        if found is None:
            raise DamagedError(f"the backup {self._file(partition)} is missing. hint: {_BACKUP.fix}")
        return found

    def _file(self, partition: int) -> StoredFile:
        return self.folder / f"{partition}.backup"
