"""The market as a producer: the same events for the same seed, appended at a steady rate by the clock.

Event time advances faster than the clock, by the ratio of the requested rate to the market's, so that windows close
within seconds. The market always contains a bot farm; its events are appended only during `contaminate`.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterator
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import EventWriter, append_heartbeat
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import FAR_AT_MS, HOUR_MS, Market

TICK_S = 0.1
_BAD_TICKS = 30
_HOURS = 10**6
Batch = tuple[pa.RecordBatch, pa.RecordBatch]


def ticks(seed: int, impressions_per_tick: int) -> Iterator[Batch]:
    """Impressions and clicks in order of arrival, in slices of equal market time; endless."""
    config = MarketConfig(hours=_HOURS, bots=(0, _HOURS))
    market = Market(seed, config)
    slices = max(1, config.impressions_per_hour // impressions_per_tick)
    for hour in count():
        arrived = market.events(hour)
        begins_ms = market.end_at_ms(hour) - HOUR_MS
        ends_ms = begins_ms + HOUR_MS * np.arange(1, slices) // slices
        parts = [
            (rows, [0, *np.searchsorted(arrive_ms, ends_ms).tolist(), rows.num_rows])
            for rows, arrive_ms in (
                (arrived.impressions, arrived.impressions_arrive_ms),
                (arrived.clicks, arrived.clicks_arrive_ms),
            )
        ]
        for i in range(slices):
            shown, pressed = (rows.slice(cuts[i], cuts[i + 1] - cuts[i]) for rows, cuts in parts)
            yield shown, pressed


def bots_in(rows: pa.RecordBatch) -> pa.Array:
    """[n] bool, whether the row's user is a bot."""
    return pc.starts_with(rows.column("user"), "x")


class Contamination:
    """A number of ticks with the events of bots.

    Attributes:
        finished: set after the last of these ticks.
    """

    def __init__(self, ticks: int) -> None:
        self.finished = threading.Event()
        self._ticks = ticks
        self._at_ms: list[int] = []

    @property
    def range_ms(self) -> tuple[int, int]:
        """Event times of the bots' events: from the first to just after the last, end exclusive."""
        return min(self._at_ms), max(self._at_ms) + 1

    def appended(self, batch: Batch) -> None:
        """Record that a tick was appended. Misdated events never become samples, so their times are ignored."""
        for rows in batch:
            at_ms = rows.filter(bots_in(rows)).column("at").to_numpy()
            self._at_ms += at_ms[(at_ms > 0) & (at_ms < FAR_AT_MS)].tolist()
        self._ticks -= 1
        if self._ticks == 0:
            self.finished.set()


class Load(threading.Thread):
    """Appends ticks until `end`, late ones immediately; finally a heartbeat in every partition."""

    def __init__(self, project: Project, seed: int, rate: float) -> None:
        """`rate` is in impressions per second."""
        super().__init__(name="market")
        self._project, self._clock = project, project.clock
        self._ticks = ticks(seed, max(1, round(rate * TICK_S)))
        self._stop_producing = threading.Event()
        self._clicked: list[tuple[float, int]] = []
        self._bad: Contamination | None = None
        self.events = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._produce()
        except BaseException as failure:
            self.failure = failure

    def end(self) -> None:
        """Stop producing; returns once the heartbeats are appended. Raises the producer's failure."""
        self._stop_producing.set()
        self.join()
        self.check()

    def check(self) -> None:
        """Raise the failure that ended the producer, if any."""
        if self.failure is not None:
            raise self.failure

    def contaminate(self) -> tuple[int, int]:
        """Append the bots' events for a few seconds; returns their range of event time, end exclusive."""
        self._bad = bad = Contamination(_BAD_TICKS)
        while not bad.finished.wait(TICK_S):
            self.check()
        return bad.range_ms

    def clicked_at_ms(self, monotonic_s: float) -> int:
        """Event time of the latest click appended by then; 0 before the first."""
        clicks = self._clicked[:]
        at = bisect_right(clicks, (monotonic_s, 2**62))
        return clicks[at - 1][1] if at else 0

    def _produce(self) -> None:
        log = open_log(self._project)
        targets = [EventWriter(self._project, log, kind) for kind in ("impressions", "clicks")]
        max_event_time_ms, next_s = 0, self._clock.monotonic_s()
        while not self._stop_producing.is_set():
            _, clicks = self._append_tick(targets)
            if clicks.num_rows:
                max_event_time_ms = max(max_event_time_ms, int(np.max(clicks.column("at").to_numpy())))
                self._clicked.append((self._clock.monotonic_s(), max_event_time_ms))
            next_s += TICK_S
            self._stop_producing.wait(max(0.0, next_s - self._clock.monotonic_s()))
        append_heartbeat(self._project, log, max_event_time_ms + 24 * HOUR_MS)
        log.close()

    def _append_tick(self, targets: list[EventWriter]) -> Batch:
        bad, batch = self._bad, next(self._ticks)
        if bad is None:
            batch = _genuine(batch)
        for target, rows in zip(targets, batch, strict=True):
            target.append(rows)
            self.events += rows.num_rows
        if bad is not None:
            bad.appended(batch)
            self._bad = None if bad.finished.is_set() else bad
        return batch


def _genuine(batch: Batch) -> Batch:
    shown, pressed = (rows.filter(pc.invert(bots_in(rows))) for rows in batch)
    return shown, pressed
