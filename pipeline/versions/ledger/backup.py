"""The backup of the ledger: one container beside it, replaced after every change but commits and epochs.

Version files describe themselves, so commits after the backup are found again (`store/restore_ledger.py`). Quarantines,
generations, halts, published pointers and what retention dropped exist nowhere else.
"""

from pathlib import Path

from pipeline.errors import DamagedError
from pipeline.formats.container import Container, Kind, write_container

BACKUP_NAME = "ledger.backup"
_BACKUP = Kind(b"ledg", "restore ledger.sqlite from a copy of the folder")


def write_backup(folder: Path, content: bytes) -> None:
    """Replace the backup in the versions folder by `content`, a complete ledger file. Raises VersionError."""
    write_container(folder / BACKUP_NAME, _BACKUP, {}, {"ledger": content})


def read_backup(folder: Path) -> bytes:
    """The ledger file in the backup. Raises DamagedError."""
    path = folder / BACKUP_NAME
    try:
        with Container.open(path, _BACKUP) as backup:
            return backup.section("ledger")
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing. hint: {_BACKUP.fix}") from None
