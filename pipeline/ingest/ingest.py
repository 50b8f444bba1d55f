"""Appends files of events to the log: typed, packed, partitioned, in file order; bad rows go to the dead letters.

An interrupted ingest continues where the log says it stopped; a file that was appended before is not appended again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import EventKind
from pipeline.arrays.keys import shard_of
from pipeline.configuration.config import EventColumns
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.ingest.chunk import BadRow, Chunk
from pipeline.ingest.files import read_file
from pipeline.ingest.ledger import Entry, IngestLedger, chunks_in_log, file_digest
from pipeline.ingest.rows import check_first, to_rows
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import dead_letter_records, dead_letters
from pipeline.logs.log import Headers, Log

BLOCK_ROWS = 8_192
"""Most events packed into one record."""
NO_OFFSET = -1
"""Source offset of a row that never reached the log."""

Progress = Callable[[int, int], None]
"""Called with bytes of the files behind us and bytes in all."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did: events appended, rows set aside, files that had been ingested before, files that went on."""

    rows: int = 0
    bad_rows: int = 0
    skipped_files: tuple[str, ...] = ()
    continued_files: tuple[str, ...] = ()

    def plus(self, other: "IngestReport") -> "IngestReport":
        """Both together."""
        return IngestReport(
            self.rows + other.rows,
            self.bad_rows + other.bad_rows,
            self.skipped_files + other.skipped_files,
            self.continued_files + other.continued_files,
        )


def ingest(
    project: Project,
    log: Log,
    kind: EventKind,
    paths: Sequence[Path],
    progress: Progress | None = None,
    again: bool = False,
) -> IngestReport:
    """Append all rows of `paths` as events of `kind`; rows and bad rows count what is in the log of each file now.

    Raises InputError for a file that is wrong as a whole, after the files before it went through.
    """
    _check_paths(paths)
    target = EventTarget(project, log, kind)
    total, behind = sum(path.stat().st_size for path in paths), 0
    report = IngestReport()
    for path in paths:
        size = path.stat().st_size

        def tell(fraction: float, behind: int = behind, size: int = size) -> None:
            if progress:
                progress(behind + int(fraction * size), total)

        report = report.plus(_ingest_file(target, path, tell, again))
        behind += size
    return report


def rehearse(project: Project, kind: EventKind, paths: Sequence[Path]) -> IngestReport:
    """What `ingest` would append and set aside of files that are new to it; changes nothing. Raises InputError."""
    _check_paths(paths)
    events, columns = project.config.events, getattr(project.config.events, kind)
    report = IngestReport()
    for path in paths:
        _check(path, columns)
        for chunk in read_file(path, columns):
            rows = to_rows(chunk, events, columns)
            report = report.plus(IngestReport(rows.batch.num_rows, len(rows.bad)))
    return report


def heartbeat(project: Project, log: Log, at_ms: int, kinds: Sequence[EventKind] = ("impressions", "clicks")) -> None:
    """Say in every partition of the named inputs that nothing before `at_ms` will come any more."""
    for kind in kinds:
        target = EventTarget(project, log, kind)
        value = target.codec.encode_heartbeat(at_ms)
        for partition in range(log.partitions(target.topic)):
            log.append(target.topic, partition, [value])


class EventTarget:
    """Where events of one kind go, and how. Not thread-safe."""

    def __init__(self, project: Project, log: Log, kind: EventKind) -> None:
        config = project.config
        self.kind, self.log = kind, log
        self.events = config.events
        self.columns: EventColumns = getattr(config.events, kind)
        self.topic: str = getattr(config.topics, kind)
        self.dead_topic = config.topics.dead_letters
        self.codec = EventCodec(config.events, kind, log)
        self.partitions = log.partitions(self.topic)
        self.ledger = IngestLedger(project.state / "ingest", kind)

    def append(self, batch: pa.RecordBatch) -> None:
        """Append typed events (`at` int64 ms first, then the declared columns) to their partitions, in their order."""
        for partition, values in self.records(batch):
            self.log.append(self.topic, partition, values)

    def records(self, batch: pa.RecordBatch) -> Iterator[tuple[int, list[bytes]]]:
        """The packed records of a batch, per partition that gets any."""
        for partition, part in self._split(batch):
            starts = range(0, part.num_rows, BLOCK_ROWS)
            yield partition, [self.codec.encode_block(part.slice(start, BLOCK_ROWS)) for start in starts]

    def set_aside(self, path: Path, bad: list[BadRow], headers: Headers) -> None:
        """Append the dead letters of bad rows: offset −1, the row is the file's line."""
        rows = [
            {
                "reason": "undecodable",
                "topic": self.topic,
                "partition": 0,
                "offset": NO_OFFSET,
                "row": row.line,
                "detail": f"{path.name} line {row.line}: {row.why}",
                "original": row.original,
            }
            for row in bad
        ]
        values, why = dead_letter_records(dead_letters(rows), headers)
        self.log.append(self.dead_topic, 0, values, headers=why)

    def _split(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        if not batch.num_rows:
            return
        if self.partitions == 1:
            yield 0, batch
            return
        owner = shard_of(batch, self.events.shard_columns, self.partitions)
        for partition in range(self.partitions):
            rows = np.flatnonzero(owner == partition)
            if len(rows):
                yield partition, batch.take(pa.array(rows))


def _ingest_file(target: EventTarget, path: Path, tell: Callable[[float], None], again: bool) -> IngestReport:
    digest = file_digest(path)
    entry = _known_entry(target, digest)
    if entry and entry.done and not again:
        tell(1.0)
        return IngestReport(skipped_files=(str(path),))
    continued = entry is not None and not entry.done
    if entry is None or entry.done:
        entry = _new_entry(target, path, digest, entry)
        # The first chunk is looked at before anything is durable: a wrong file leaves no trace.
        _check(path, target.columns)
        target.ledger.put(entry)
    have = chunks_in_log(target.log, entry) if continued else dict.fromkeys(entry.starts, 0)
    rows = bad_rows = 0
    for number, chunk in enumerate(read_file(path, target.columns)):
        good, bad = _append_chunk(target, path, chunk, have, entry, number)
        rows, bad_rows = rows + good, bad_rows + bad
        tell(chunk.fraction)
    target.ledger.put(replace(entry, done=True, rows=rows, bad_rows=bad_rows))
    return IngestReport(rows, bad_rows, continued_files=(str(path),) if continued else ())


def _append_chunk(
    target: EventTarget, path: Path, chunk: Chunk, have: dict[str, int], entry: Entry, number: int
) -> tuple[int, int]:
    """Append what the log lacks of one chunk; returns its good and bad rows."""
    rows = to_rows(chunk, target.events, target.columns)
    headers = entry.headers(number)
    for partition, values in target.records(rows.batch):
        if number >= have[f"{target.topic}/{partition}"]:
            target.log.append(target.topic, partition, values, headers=headers)
    if rows.bad and number >= have[f"{target.dead_topic}/0"]:
        target.set_aside(path, rows.bad, headers)
    return rows.batch.num_rows, len(rows.bad)


def _check_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is not a file. hint: check the path")


def _check(path: Path, columns: EventColumns) -> None:
    for chunk in read_file(path, columns):
        check_first(path, chunk, columns)
        return


def _known_entry(target: EventTarget, digest: str) -> Entry | None:
    """The file's entry, unless it speaks of another log."""
    entry = target.ledger.find(digest)
    ids = {topic: target.log.log_id(topic) for topic in (target.topic, target.dead_topic)}
    return entry if entry and entry.log_ids == ids else None


def _new_entry(target: EventTarget, path: Path, digest: str, before: Entry | None) -> Entry:
    topics = (target.topic, target.dead_topic)
    ids = {topic: target.log.log_id(topic) for topic in topics}
    places = [(topic, partition) for topic in topics for partition in range(target.log.partitions(topic))]
    starts = {f"{topic}/{partition}": target.log.end_offset(topic, partition) for topic, partition in places}
    return Entry(str(path), digest, (before.run if before else 0) + 1, ids, starts)
