"""What was ingested already: one small file per input file, named by event type and content.

The ledger only says where in the log to look; how far a file got is read from the log itself, whose records name the
file and chunk they came from. So nothing is lost or doubled, wherever an ingest was interrupted.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.arrays.block import EventKind
from pipeline.formats.atomic_file import write_atomically
from pipeline.logs.log import Log, runs_of

FILE_HEADER = "ingest-file"
CHUNK_HEADER = "ingest-chunk"


@dataclass(frozen=True)
class Entry:
    """One file's entry.

    Attributes:
        path: where the file was when it was ingested.
        digest: SHA-256 of its content, hex.
        run: how often it was begun on purpose (`again`), from 1: part of what its records are headed with.
        log_ids: topic → log id it went into; another log has not seen the file.
        starts: "topic/partition" → end offset before its first record.
        done: finished.
        rows, bad_rows: of a finished file.
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
    def mark(self) -> str:
        """What its records carry under `FILE_HEADER`."""
        return f"{self.digest}-{self.run}"

    def headers(self, chunk: int) -> Mapping[str, str]:
        """The headers of the records of one chunk."""
        return {FILE_HEADER: self.mark, CHUNK_HEADER: str(chunk)}


class IngestLedger:
    """Entries in a folder. One process at a time per file."""

    def __init__(self, folder: Path, kind: EventKind) -> None:
        self._folder, self._kind = folder, kind

    def find(self, digest: str) -> Entry | None:
        """The entry of a file with this content."""
        path = self._path(digest)
        return Entry(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def put(self, entry: Entry) -> None:
        """Write the entry durably."""
        write_atomically(self._path(entry.digest), [json.dumps(asdict(entry)).encode()])

    def _path(self, digest: str) -> Path:
        return self._folder / f"{self._kind}-{digest[:32]}.json"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks_in_log(log: Log, entry: Entry) -> dict[str, int]:
    """How many chunks of the file each "topic/partition" holds already."""
    return {place: _count_chunks(log, place, start, entry.mark) for place, start in entry.starts.items()}


def _count_chunks(log: Log, place: str, start: int, mark: str) -> int:
    topic, _, partition = place.rpartition("/")
    chunks, begin = 0, max(start, log.begin_offset(topic, int(partition)))
    for records in runs_of(log, topic, int(partition), begin):
        for record in records:
            if record.headers.get(FILE_HEADER) == mark:
                chunks = max(chunks, int(record.headers[CHUNK_HEADER]) + 1)
    return chunks
