"""Appends files of events to the log: typed, packed, partitioned, in file order; bad rows become dead letters.

An interrupted ingest continues after the last chunk in the log; a file that was ingested before is skipped.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from pipeline.arrays.block import EventKind
from pipeline.configuration.events import EventColumns
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.ingest.chunk import Chunk
from pipeline.ingest.event_writer import EventWriter
from pipeline.ingest.files import read_file
from pipeline.ingest.ledger import IngestEntry, IngestLedger, chunks_in_log, file_digest
from pipeline.ingest.rows import check_first_chunk, convert_chunk
from pipeline.logs.interface.log import Log

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes of the files read so far and their total."""


@dataclass(frozen=True)
class IngestReport:
    """Result of an ingest.

    Attributes:
        rows: events appended.
        bad_rows: rows that became dead letters.
        skipped_files: files that had been ingested before.
        continued_files: files whose interrupted ingest was completed.
    """

    rows: int = 0
    bad_rows: int = 0
    skipped_files: tuple[str, ...] = ()
    continued_files: tuple[str, ...] = ()

    def __add__(self, other: "IngestReport") -> "IngestReport":
        return IngestReport(*map(operator.add, astuple(self), astuple(other)))


def ingest(
    project: Project,
    log: Log,
    kind: EventKind,
    paths: Sequence[Path],
    progress: ProgressCallback | None = None,
    again: bool = False,
) -> IngestReport:
    """Append all rows of `paths` as events of `kind`.

    For a continued file the report counts all its rows, including those appended before the interruption.

    Raises InputError for a file that is wrong as a whole; the files before it have then been appended.
    """
    _check_paths(paths)
    writer, ledger = EventWriter(project, log, kind), IngestLedger(project.state / "ingest", kind)
    total, done = sum(path.stat().st_size for path in paths), 0
    report = IngestReport()
    for path in paths:
        size = path.stat().st_size

        def report_progress(fraction: float, done: int = done, size: int = size) -> None:
            if progress:
                progress(done + int(fraction * size), total)

        report += _ingest_file(writer, ledger, path, report_progress, again)
        done += size
    return report


def dry_run_ingest(project: Project, kind: EventKind, paths: Sequence[Path]) -> IngestReport:
    """What `ingest` would append and refuse of files that are new to it; changes nothing. Raises InputError."""
    _check_paths(paths)
    events, columns = project.config.events, getattr(project.config.events, kind)
    report = IngestReport()
    for path in paths:
        _check_file(path, columns)
        for chunk in read_file(path, columns):
            rows = convert_chunk(chunk, events, columns)
            report += IngestReport(rows.batch.num_rows, len(rows.bad))
    return report


def _ingest_file(
    writer: EventWriter, ledger: IngestLedger, path: Path, report_progress: Callable[[float], None], again: bool
) -> IngestReport:
    digest = file_digest(path)
    entry = _known_entry(writer, ledger, digest)
    if entry and entry.done and not again:
        report_progress(1.0)
        return IngestReport(skipped_files=(str(path),))
    continued = entry is not None and not entry.done
    if entry is None or entry.done:
        entry = _new_entry(writer, path, digest, entry)
        # Checked before anything is durable: a wrong file leaves no trace.
        _check_file(path, writer.columns)
        ledger.put(entry)
    appended = chunks_in_log(writer.log, entry) if continued else dict.fromkeys(entry.starts, 0)
    rows = bad_rows = 0
    for number, chunk in enumerate(read_file(path, writer.columns)):
        good, bad = _append_chunk(writer, path, chunk, appended, entry, number)
        rows, bad_rows = rows + good, bad_rows + bad
        report_progress(chunk.fraction)
    ledger.put(replace(entry, done=True, rows=rows, bad_rows=bad_rows))
    return IngestReport(rows, bad_rows, continued_files=(str(path),) if continued else ())


def _append_chunk(
    writer: EventWriter, path: Path, chunk: Chunk, appended: dict[str, int], entry: IngestEntry, number: int
) -> tuple[int, int]:
    """Append the records of a chunk that are not in the log yet; returns the chunk's good and bad rows."""
    rows = convert_chunk(chunk, writer.events, writer.columns)
    headers = entry.headers(number)
    for partition, values in writer.records(rows.batch):
        if number >= appended[f"{writer.topic}/{partition}"]:
            writer.log.append(writer.topic, partition, values, headers=headers)
    if rows.bad and number >= appended[f"{writer.dead_topic}/0"]:
        writer.append_dead_letters(path.name, rows.bad, headers)
    return rows.batch.num_rows, len(rows.bad)


def _check_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is not a file. hint: check the path")


def _check_file(path: Path, columns: EventColumns) -> None:
    for chunk in read_file(path, columns):
        check_first_chunk(path, chunk, columns)
        return


def _known_entry(writer: EventWriter, ledger: IngestLedger, digest: str) -> IngestEntry | None:
    """The ledger entry of a file; None if there is none, or if it refers to another log."""
    entry = ledger.find(digest)
    return entry if entry and entry.log_ids == _log_ids(writer) else None


def _new_entry(writer: EventWriter, path: Path, digest: str, previous: IngestEntry | None) -> IngestEntry:
    log_ids = _log_ids(writer)
    starts = {
        f"{topic}/{partition}": writer.log.end_offset(topic, partition)
        for topic in log_ids
        for partition in range(writer.log.partitions(topic))
    }
    return IngestEntry(str(path), digest, (previous.run if previous else 0) + 1, log_ids, starts)


def _log_ids(writer: EventWriter) -> dict[str, str]:
    return {topic: writer.log.log_id(topic) for topic in (writer.topic, writer.dead_topic)}
