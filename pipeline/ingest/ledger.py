"""Which files were ingested: one small JSON file per input file, named by event kind and content digest.

A file is JSON: the version of the format, the entry, and the CRC-32 of the entry as JSON with sorted keys. Entries of
earlier releases have no version; they count if they are complete.

An entry stores where in the log to look. How far an interrupted file got is read from the log, whose records carry the
file and the chunk they came from: no row is lost or appended twice, at whatever point an ingest was interrupted.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.arrays.block import EventKind
from pipeline.errors import DamagedError, InputError
from pipeline.files.atomic_file import write_atomically
from pipeline.ingest.index import IngestIndex
from pipeline.ingest.times import TimeLimits
from pipeline.logs.interface.log import Log, read_to_end

FILE_HEADER = "ingest-file"
CHUNK_HEADER = "ingest-chunk"
_VERSION = 2


@dataclass(frozen=True)
class IngestEntry:
    """The entry of one file.

    Attributes:
        path: path of the file when it was ingested.
        digest: SHA-256 of its content, hex.
        run: number of times its ingest was requested (`again`), from 1.
        log_ids: topic → log id it was appended to; a topic created again has another id and not the file.
        starts: "topic/partition" → end offset before the file's first record.
        limits: what the times of its rows are compared with, so that a continued ingest decides alike.
        done: whether the ingest is complete.
        rows, bad_rows: counts, once `done`.
        last_ms: "topic/partition" → latest event time after its last record, once `done`.
    """

    path: str
    digest: str
    run: int
    log_ids: dict[str, str]
    starts: dict[str, int]
    limits: TimeLimits
    done: bool = False
    rows: int = 0
    bad_rows: int = 0
    last_ms: dict[str, int] = field(default_factory=dict)

    @property
    def file_id(self) -> str:
        """Value of `FILE_HEADER` in the file's records."""
        return f"{self.digest}-{self.run}"

    def headers(self, chunk: int) -> Mapping[str, str]:
        """Headers of the records of one chunk."""
        return {FILE_HEADER: self.file_id, CHUNK_HEADER: str(chunk)}


class IngestLedger:
    """Entries in a folder. A file may be ingested by one process at a time."""

    def __init__(self, folder: Path, kind: EventKind) -> None:
        self._folder, self._kind = folder, kind
        self._index = IngestIndex(folder, kind)

    def find(self, digest: str, again: bool = False) -> IngestEntry | None:
        """The entry of the file with this content digest; None if it has none. With `again` it may have been deleted.

        Raises DamagedError, also if the entry was deleted, or InputError for an interrupted ingest of an earlier
        release.
        """
        path = self._path(digest)
        if not path.exists():
            if not again and self._index.last_run(digest):
                raise DamagedError(
                    f"{path}, the entry of a file that was ingested, is missing. hint: restore it, or pass --again to "
                    "append the file a second time"
                )
            return None
        entry = _read(path)
        if entry.digest != digest:
            raise _damaged(path, f"it is the entry of file {entry.digest[:12]}, wanted {digest[:12]}")
        return entry

    def put(self, entry: IngestEntry) -> None:
        """Write the entry durably."""
        document = asdict(entry)
        content = {"version": _VERSION, "crc32": _crc32(document), "entry": document}
        write_atomically(self._path(entry.digest), [json.dumps(content).encode()])
        if self._index.last_run(entry.digest) < entry.run:
            self._index.add(entry.digest, entry.run)

    def next_run(self, digest: str, previous: IngestEntry | None) -> int:
        """The number of the next ingest of a file: none of its records in the log has it."""
        return max(self._index.last_run(digest), previous.run if previous else 0) + 1

    def empty(self) -> bool:
        """Whether no file of this kind has an entry."""
        return next(self._folder.glob(f"{self._kind}-*.json"), None) is None

    def last_ms(self, log_ids: Mapping[str, str]) -> dict[str, int]:
        """By "topic/partition", the latest event time that a complete ingest appended to these logs."""
        last_ms: dict[str, int] = {}
        for path in sorted(self._folder.glob(f"{self._kind}-*.json")):
            try:
                entry = _read(path)
            except InputError:  # begun by another release: it stops its own file only
                continue
            if entry.log_ids == log_ids:
                last_ms |= {place: max(at, last_ms.get(place, at)) for place, at in entry.last_ms.items()}
        return last_ms

    def _path(self, digest: str) -> Path:
        return self._folder / f"{self._kind}-{digest[:32]}.json"


def _read(path: Path) -> IngestEntry:
    try:
        content = json.loads(path.read_bytes())
        if "version" not in content and content["done"]:
            return IngestEntry(**content, limits=TimeLimits(0, 0))
        version = content.get("version")
        if version == _VERSION and content["crc32"] == _crc32(content["entry"]):
            return IngestEntry(**{**content["entry"], "limits": TimeLimits(**content["entry"]["limits"])})
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise _damaged(path, failure) from None
    if version == _VERSION:
        raise _damaged(path, "it does not match its checksum")
    raise InputError(
        f"{path} is of an ingest that another release began, in version {version}, wanted {_VERSION}. "
        "hint: complete it with that release"
    )


def _damaged(path: Path, why: object) -> DamagedError:
    hint = "hint: restore it; without it, its file is appended again"
    return DamagedError(f"{path} is not an entry of the ingest ledger: {why}. {hint}")


def _crc32(document: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(document, sort_keys=True).encode())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks_in_log(log: Log, entry: IngestEntry) -> dict[str, int]:
    """By "topic/partition", the number of the file's chunks that it holds."""
    return {partition: _count_chunks(log, partition, start, entry.file_id) for partition, start in entry.starts.items()}


def _count_chunks(log: Log, topic_partition: str, start: int, file_id: str) -> int:
    topic, _, partition = topic_partition.rpartition("/")
    chunks, begin = 0, max(start, log.begin_offset(topic, int(partition)))
    for records in read_to_end(log, topic, int(partition), begin):
        for record in records:
            if record.headers.get(FILE_HEADER) == file_id:
                chunks = max(chunks, int(record.headers[CHUNK_HEADER]) + 1)
    return chunks
