"""Appends files of events to the log: typed, packed, partitioned, in file order; bad rows become dead letters.

Every file is read completely before its first row is appended. An interrupted ingest continues after the last chunk in
the log; a file that was ingested before is skipped.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from pipeline.arrays.block import EventKind
from pipeline.configuration.project import Project
from pipeline.configuration.streams.events import EventColumns, Events
from pipeline.errors import InputError
from pipeline.ingest.event_writer import EventWriter, split_by_partition
from pipeline.ingest.files.read import read_file
from pipeline.ingest.ledger import FILE_HEADER, IngestEntry, IngestLedger, chunks_in_log, file_digest
from pipeline.ingest.rows import ConvertedRows, convert_chunk
from pipeline.ingest.survey import Survey, survey_file
from pipeline.ingest.times import LateRows, TimeLimits
from pipeline.logs.interface.log import Log, last_record
from pipeline.process.instant import format_instant

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes of the files read so far and their total."""


@dataclass(frozen=True)
class IngestReport:
    """Result of an ingest.

    Attributes:
        rows: events appended.
        bad_rows: rows that became dead letters.
        late_rows: of `rows`, those that are late because of earlier ones.
        first_bad: of each file with bad rows the first one: file, line and what is wrong.
        skipped_files: files that had been ingested before.
        continued_files: files whose interrupted ingest was completed.
        warnings: what an operator should look at, one line each.
    """

    rows: int = 0
    bad_rows: int = 0
    late_rows: int = 0
    first_bad: tuple[str, ...] = ()
    skipped_files: tuple[str, ...] = ()
    continued_files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

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

    Raises InputError for a file that is wrong as a whole, of which no row is appended; the files before it have then
    been appended.
    """
    _check_paths(paths)
    run = _Ingest(project, log, kind)
    total, done = sum(path.stat().st_size for path in paths), 0
    report = IngestReport(warnings=run.warnings())
    for path in paths:
        size = path.stat().st_size

        def report_progress(fraction: float, done: int = done, size: int = size) -> None:
            if progress:
                progress(done + int(fraction * size), total)

        report += run.file(path, report_progress, again)
        done += size
    return report


def dry_run_ingest(project: Project, kind: EventKind, paths: Sequence[Path]) -> IngestReport:
    """What `ingest` would append to an empty log, and refuse; changes nothing. Raises InputError."""
    _check_paths(paths)
    config, columns = project.config, project.config.events.by_kind[kind]
    late, report = LateRows(round(config.events.disorder_s * 1000), {}), IngestReport()
    for path in paths:
        survey = survey_file(path, config.events, columns, project.clock.now_ms(), lambda _: None)
        counts = IngestReport()
        for rows in _converted(path, config.events, columns, survey.limits):
            parts = split_by_partition(rows.batch, config.events, config.logs.partitions)
            late_rows = sum(
                late.add(partition, part.column("at").to_numpy(), survey.limits) for partition, part in parts
            )
            counts = _counted(counts, path, rows, late_rows)
        report += replace(counts, warnings=_warnings(path, config.events, columns, survey, counts))
    return report


class _Ingest:
    """An ingest of files of one kind. Not thread-safe."""

    def __init__(self, project: Project, log: Log, kind: EventKind) -> None:
        self._clock = project.clock
        self._writer = EventWriter(project, log, kind)
        self._folder = project.state / "ingest"
        self._ledger = IngestLedger(self._folder, kind)
        self._log_ids = {topic: log.log_id(topic) for topic in (self._writer.topic, self._writer.dead_topic)}
        last_ms = self._ledger.last_ms(self._log_ids)
        places = {partition: self._place(partition) for partition in range(self._writer.partitions)}
        known = {partition: last_ms[place] for partition, place in places.items() if place in last_ms}
        self._late = LateRows(round(self._writer.events.disorder_s * 1000), known)

    def warnings(self) -> tuple[str, ...]:
        """Whether the log holds ingested files of which this project has no entry: nothing would be skipped."""
        writer = self._writer
        if not self._ledger.empty():
            return ()
        lasts = [last_record(writer.log, writer.topic, partition) for partition in range(writer.partitions)]
        if not any(record and FILE_HEADER in record.headers for record in lasts):
            return ()
        return (
            f"topic {writer.topic} holds ingested files, but {self._folder} has no entry of any: a file that was "
            "ingested is appended a second time. hint: restore the folder, unless another project ingested them",
        )

    def file(self, path: Path, report_progress: Callable[[float], None], again: bool) -> IngestReport:
        """Append one file. Raises InputError."""
        writer, digest = self._writer, file_digest(path)
        entry = self._ledger.find(digest, again)
        if entry and entry.log_ids != self._log_ids:
            entry = None
        if entry and entry.done and not again:
            report_progress(1.0)
            return IngestReport(skipped_files=(str(path),))
        now_ms = self._clock.now_ms()
        survey = survey_file(path, writer.events, writer.columns, now_ms, lambda share: report_progress(share / 2))
        continued = entry is not None and not entry.done
        if entry is None or entry.done:
            entry = self._new_entry(path, digest, entry, survey.limits)
            self._ledger.put(entry)
        appended = chunks_in_log(writer.log, entry) if continued else dict.fromkeys(entry.starts, 0)
        counts = self._append(path, entry, appended, report_progress)
        last_ms = {self._place(partition): at for partition, at in self._late.last_ms.items()}
        self._ledger.put(replace(entry, done=True, rows=counts.rows, bad_rows=counts.bad_rows, last_ms=last_ms))
        report_progress(1.0)
        return replace(
            counts,
            continued_files=(str(path),) if continued else (),
            warnings=_warnings(path, writer.events, writer.columns, survey, counts),
        )

    def _append(
        self, path: Path, entry: IngestEntry, appended: dict[str, int], report_progress: Callable[[float], None]
    ) -> IngestReport:
        """Append the records of a file that are not in the log yet; counts all its rows."""
        writer, counts = self._writer, IngestReport()
        for number, rows in enumerate(_converted(path, writer.events, writer.columns, entry.limits)):
            headers, late_rows = entry.headers(number), 0
            for partition, part in split_by_partition(rows.batch, writer.events, writer.partitions):
                late_rows += self._late.add(partition, part.column("at").to_numpy(), entry.limits)
                if number >= appended[self._place(partition)]:
                    writer.append_part(partition, part, headers)
            if rows.bad and number >= appended[f"{writer.dead_topic}/0"]:
                writer.append_dead_letters(_shown_name(path), rows.bad, headers)
            counts = _counted(counts, path, rows, late_rows)
            report_progress(0.5 + rows.fraction / 2)
        return counts

    def _new_entry(self, path: Path, digest: str, previous: IngestEntry | None, limits: TimeLimits) -> IngestEntry:
        log = self._writer.log
        starts = {
            f"{topic}/{partition}": log.end_offset(topic, partition)
            for topic in self._log_ids
            for partition in range(log.partitions(topic))
        }
        run = self._ledger.next_run(digest, previous)
        return IngestEntry(str(path), digest, run, self._log_ids, starts, limits)

    def _place(self, partition: int) -> str:
        return f"{self._writer.topic}/{partition}"


def _converted(path: Path, events: Events, columns: EventColumns, limits: TimeLimits) -> Iterator[ConvertedRows]:
    for chunk in read_file(path, columns, events.shard_keys):
        yield convert_chunk(chunk, events, columns, limits)


def _counted(counts: IngestReport, path: Path, rows: ConvertedRows, late_rows: int) -> IngestReport:
    """The counts of a file with those of its next rows."""
    bad = [] if counts.first_bad else rows.bad[:1]
    first_bad = tuple(_printable(f"{path} line {row.line}: {row.why}") for row in bad)
    return counts + IngestReport(rows.batch.num_rows, len(rows.bad), late_rows, first_bad)


def _warnings(
    path: Path, events: Events, columns: EventColumns, survey: Survey, counts: IngestReport
) -> tuple[str, ...]:
    warnings = survey.warnings(path, columns)
    if counts.late_rows and survey.range_ms:
        first, last = map(format_instant, survey.range_ms)
        share = f"{counts.late_rows} of {counts.rows} rows ({counts.late_rows / counts.rows:.1%})"
        warnings.append(
            f"{path} has times from {first} to {last}; {share} are more than {events.disorder_s:g} s older than a row "
            "before them and will be late. hint: ingest in the order of time, or raise events.disorder_s"
        )
    return tuple(_printable(warning) for warning in warnings)


def _shown_name(path: Path) -> str:
    return _printable(path.name)


def _printable(text: str) -> str:
    """Text without the bytes of a file name that are no UTF-8; they are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _check_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is not a file. hint: check the path")
