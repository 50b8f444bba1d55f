"""Which files were ingested: one small JSON file per input file, named by event kind and content digest.

An entry stores where in the log to look. How far an interrupted file got is read from the log, whose records carry the
file and the chunk they came from: no row is lost or appended twice, at whatever point an ingest was interrupted.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.arrays.block import EventKind
from pipeline.formats.atomic_file import write_atomically
from pipeline.logs.interface.log import Log, read_to_end

FILE_HEADER = "ingest-file"
CHUNK_HEADER = "ingest-chunk"


@dataclass(frozen=True)
class IngestEntry:
    """The entry of one file.

    Attributes:
        path: path of the file when it was ingested.
        digest: SHA-256 of its content, hex.
        run: number of times its ingest was requested (`again`), from 1.
        log_ids: topic → log id it was appended to; a topic created again has another id and not the file.
        starts: "topic/partition" → end offset before the file's first record.
        done: whether the ingest is complete.
        rows, bad_rows: counts, once `done`.
    """

    path: str
    digest: str
    run: int
    log_ids: dict[str, str]
    starts: dict[str, int]
    done: bool = False
    rows: int = 0
    bad_rows: int = 0

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

    def find(self, digest: str) -> IngestEntry | None:
        """The entry of the file with this content digest; None if it has none."""
        path = self._path(digest)
        return IngestEntry(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def put(self, entry: IngestEntry) -> None:
        """Write the entry durably."""
        write_atomically(self._path(entry.digest), [json.dumps(asdict(entry)).encode()])

    def _path(self, digest: str) -> Path:
        return self._folder / f"{self._kind}-{digest[:32]}.json"


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
