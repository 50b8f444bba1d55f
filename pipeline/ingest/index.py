"""The list of ingest entries that were written: an entry that is missing since is noticed.

A text file per event kind, to which a line is appended with each new entry, after the entry itself is durable:

    <SHA-256 of the file that was ingested> <run> <CRC-32 of kind, digest and run, 8 hex digits>

A last line without an end was interrupted and does not count. Folders of earlier releases have no list; it begins with
the next new entry.
"""

import fcntl
import os
import zlib
from pathlib import Path

from pipeline.arrays.block import EventKind
from pipeline.errors import DamagedError, VersionError
from pipeline.files.atomic_file import sync_folder


class IngestIndex:
    """The list of one kind in a folder. Several processes may append."""

    def __init__(self, folder: Path, kind: EventKind) -> None:
        self._path, self._kind = folder / f"{kind}.index", kind

    def last_run(self, digest: str) -> int:
        """The latest run of the file with this content digest; 0 if it is not listed. Raises DamagedError."""
        try:
            *lines, _ = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return 0
        return max((run for listed, run in map(self._parsed, lines) if listed == digest), default=0)

    def add(self, digest: str, run: int) -> None:
        """Append a line durably. Raises VersionError if the disk is full, for example."""
        try:
            created = not self._path.exists()
            with self._path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
                file.write(self._line(digest, run))
                file.flush()
                os.fsync(file.fileno())
            if created:
                sync_folder(self._path.parent)
        except OSError as failure:
            raise VersionError(
                f"{self._path} cannot be written: {failure.strerror}. hint: make room on its disk, then start again"
            ) from None

    def _line(self, digest: str, run: int) -> bytes:
        body = f"{digest} {run}"
        return f"{body} {zlib.crc32(f'{self._kind} {body}'.encode()):08x}\n".encode()

    def _parsed(self, line: bytes) -> tuple[str, int]:
        digest, _, rest = line.decode("ascii", "replace").partition(" ")
        run = rest.partition(" ")[0]
        if not run.isdecimal() or self._line(digest, int(run)) != line + b"\n":
            raise DamagedError(
                f"{self._path} has a damaged line: {line[:100]!r}. hint: restore it, or delete the line; the entries "
                "beside it remain"
            )
        return digest, int(run)
