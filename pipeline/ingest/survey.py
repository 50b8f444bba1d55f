"""Reads a file completely before any row of it is appended: a file that is wrong or breaks leaves no trace."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.streams.events import EventColumns, Events
from pipeline.errors import InputError
from pipeline.ingest.files.read import read_file
from pipeline.ingest.rows import MIN_ROWS_TO_REFUSE_FILE, check_first_chunk
from pipeline.ingest.times import MIN_ROWS, TimeLimits, TimeProfile
from pipeline.logs.events.convert import convert_time
from pipeline.process.instant import format_instant

_PLAUSIBLE_MS = 946_684_800_000
"""2000-01-01. A file that ends before probably has another unit."""
_LAST_MS = 253_402_300_800_000
"""10000-01-01, from which on a datetime cannot represent a time."""


@dataclass(frozen=True)
class Survey:
    """What a file holds.

    Attributes:
        limits: what the times of its rows are compared with.
        range_ms: first and last time of the rows that are neither strays nor in the future; None without any.
        future: number of rows in the future.
        unseen: declared columns that no row has.
        undecided: whether its times are far apart and too few to decide which of them are strays.
    """

    limits: TimeLimits
    range_ms: tuple[int, int] | None
    future: int
    unseen: tuple[str, ...]
    undecided: bool = False

    def warnings(self, path: Path, columns: EventColumns) -> list[str]:
        """What an operator should see before the file is used."""
        found = [f"{path}: no row has column {name}, it is null" for name in self.unseen]
        if self.range_ms and self.range_ms[1] < _PLAUSIBLE_MS:
            found.append(
                f"{path} has times from {format_instant(self.range_ms[0])} to {format_instant(self.range_ms[1])}. "
                f"hint: springtide.toml has time_unit {columns.time_unit}, is it another?"
            )
        if self.range_ms and self.undecided:
            found.append(
                f"{path} has times from {format_instant(self.range_ms[0])} to {format_instant(self.range_ms[1])}, and "
                f"fewer than {MIN_ROWS} rows: none is set aside as dated wrongly. hint: a row dated ahead by mistake "
                "makes all later events of its partition late; check the last time"
            )
        if self.future:
            found.append(
                f"{path} has {self.future} rows in the future, which every reader sets aside. "
                "hint: correct their times, or raise events.skew_s and replay the dead letters"
            )
        return found


def survey_file(
    path: Path, events: Events, columns: EventColumns, now_ms: int, report_progress: Callable[[float], None]
) -> Survey:
    """Read a file and check its shape. Raises InputError if it is wrong as a whole or cannot be read to its end."""
    future_ms = now_ms + round(events.skew_s * 1000)
    profile, future, first_future_ms, unseen = TimeProfile(), 0, 2**63 - 1, None
    for number, chunk in enumerate(read_file(path, columns, events.shard_keys)):
        if number == 0:
            check_first_chunk(path, chunk, columns)
        times = convert_time(chunk.columns.column(columns.time), columns.time_unit)[0].drop_null().to_numpy()
        profile.add(times[(times >= 0) & (times <= future_ms)])
        later = times[times > future_ms]
        future, first_future_ms = future + len(later), int(later.min(initial=first_future_ms))
        if chunk.columns.num_rows:
            unseen = chunk.unseen if unseen is None else unseen & chunk.unseen
        report_progress(chunk.fraction)
    if future >= MIN_ROWS_TO_REFUSE_FILE and not profile.rows and first_future_ms >= _LAST_MS:
        raise InputError(
            f"{path} column {columns.time} has times from {format_instant(first_future_ms)} on, after the year 9999. "
            f"hint: springtide.toml has time_unit {columns.time_unit}, is it another?"
        )
    latest_ms = None if events.max_ahead_s is None else profile.latest_ms(round(events.max_ahead_s * 1000))
    limits = TimeLimits(future_ms if latest_ms is None else latest_ms, future_ms)
    range_ms = _range_within(profile, limits)
    undecided = _undecided(profile, range_ms, events.max_ahead_s)
    return Survey(limits, range_ms, future, tuple(sorted(unseen or ())), undecided)


def _undecided(profile: TimeProfile, range_ms: tuple[int, int] | None, max_ahead_s: float | None) -> bool:
    if range_ms is None or max_ahead_s is None or profile.rows >= MIN_ROWS:
        return False
    return range_ms[1] - range_ms[0] > max_ahead_s * 1000


def _range_within(profile: TimeProfile, limits: TimeLimits) -> tuple[int, int] | None:
    found = profile.range_ms()
    return found and (found[0], min(found[1], limits.latest_ms))
