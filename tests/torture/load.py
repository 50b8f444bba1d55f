"""The market as a producer of its own: the same events for the same seed, appended at a steady rate by the clock.

An event's time runs ahead of the clock by as much as the market's rate falls short of the one asked for: its windows
close within seconds. A bot farm is always at work in this market; what it does gets into the log only while somebody
contaminates it.
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
    """Impressions and clicks as they arrive, cut into slices of equal market time; never ends."""
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
    """[n] bool: whose accounts are the farm's."""
    return pc.starts_with(rows.column("user"), "x")


class Contamination:
    """Bots are let in for some ticks.

    Attributes:
        over: set once they are kept out again.
    """

    def __init__(self, ticks: int) -> None:
        self.over = threading.Event()
        self._ticks = ticks
        self._at_ms: list[int] = []

    @property
    def span_ms(self) -> tuple[int, int]:
        """From the first time of what bots did to behind the last."""
        return min(self._at_ms), max(self._at_ms) + 1

    def let_in(self, batch: Batch) -> None:
        """One tick is in the log. Events that are misdated never become samples."""
        for rows in batch:
            at_ms = rows.filter(bots_in(rows)).column("at").to_numpy()
            self._at_ms += at_ms[(at_ms > 0) & (at_ms < FAR_AT_MS)].tolist()
        self._ticks -= 1
        if self._ticks == 0:
            self.over.set()


class Load(threading.Thread):
    """Appends ticks until told to stop, late ones at once; the last word in every partition is a heartbeat."""

    def __init__(self, project: Project, seed: int, rate: float) -> None:
        """`rate`: impressions a second."""
        super().__init__(name="market")
        self._project, self._clock = project, project.clock
        self._ticks = ticks(seed, max(1, round(rate * TICK_S)))
        self._over = threading.Event()
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
        """Stop producing; returns once the heartbeats stand. Raises what stopped it before."""
        self._over.set()
        self.join()
        self.check()

    def check(self) -> None:
        """Raises what stopped it."""
        if self.failure is not None:
            raise self.failure

    def contaminate(self) -> tuple[int, int]:
        """Let bots in for a moment; returns from when to when in event time, the end exclusive."""
        self._bad = bad = Contamination(_BAD_TICKS)
        while not bad.over.wait(TICK_S):
            self.check()
        return bad.span_ms

    def clicked_at_ms(self, monotonic_s: float) -> int:
        """The time of the newest click that was in the log then; 0 before the first."""
        known = self._clicked[:]
        at = bisect_right(known, (monotonic_s, 2**62))
        return known[at - 1][1] if at else 0

    def _produce(self) -> None:
        log = open_log(self._project)
        targets = [EventWriter(self._project, log, kind) for kind in ("impressions", "clicks")]
        newest_ms, next_s = 0, self._clock.monotonic_s()
        while not self._over.is_set():
            _, clicks = self._append_tick(targets)
            if clicks.num_rows:
                newest_ms = max(newest_ms, int(np.max(clicks.column("at").to_numpy())))
                self._clicked.append((self._clock.monotonic_s(), newest_ms))
            next_s += TICK_S
            self._over.wait(max(0.0, next_s - self._clock.monotonic_s()))
        append_heartbeat(self._project, log, newest_ms + 24 * HOUR_MS)
        log.close()

    def _append_tick(self, targets: list[EventWriter]) -> Batch:
        bad, batch = self._bad, next(self._ticks)
        if bad is None:
            batch = _genuine(batch)
        for target, rows in zip(targets, batch, strict=True):
            target.append(rows)
            self.events += rows.num_rows
        if bad is not None:
            bad.let_in(batch)
            self._bad = None if bad.over.is_set() else bad
        return batch


def _genuine(batch: Batch) -> Batch:
    shown, pressed = (rows.filter(pc.invert(bots_in(rows))) for rows in batch)
    return shown, pressed
