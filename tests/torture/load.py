"""The market as a producer of its own: the same events for the same seed, appended at a steady rate by the clock.

An event's time runs ahead of the clock by as much as the market's rate falls short of the one asked for: its windows
close within seconds.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterator
from itertools import count

import numpy as np
import pyarrow as pa

from pipeline.ground.project import Project
from pipeline.ingest.ingest import EventTarget, heartbeat
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import HOUR_MS, Market

TICK_S = 0.1
Batch = tuple[pa.RecordBatch, pa.RecordBatch]


def ticks(seed: int, impressions_per_tick: int) -> Iterator[Batch]:
    """Impressions and clicks as they arrive, cut into slices of equal market time; never ends."""
    config = MarketConfig(hours=10**6)
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


class Load(threading.Thread):
    """Appends ticks until told to stop, late ones at once; the last word in every partition is a heartbeat."""

    def __init__(self, project: Project, seed: int, rate: float) -> None:
        """`rate`: impressions a second."""
        super().__init__(name="market")
        self._project, self._clock = project, project.clock
        self._ticks = ticks(seed, max(1, round(rate * TICK_S)))
        self._over = threading.Event()
        self._clicked: list[tuple[float, int]] = []
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

    def clicked_at_ms(self, monotonic_s: float) -> int:
        """The time of the newest click that was in the log then; 0 before the first."""
        known = self._clicked[:]
        at = bisect_right(known, (monotonic_s, 2**62))
        return known[at - 1][1] if at else 0

    def _produce(self) -> None:
        log = open_log(self._project)
        targets = [EventTarget(self._project, log, kind) for kind in ("impressions", "clicks")]
        newest_ms, next_s = 0, self._clock.monotonic_s()
        while not self._over.is_set():
            for target, rows in zip(targets, batch := next(self._ticks), strict=True):
                target.append(rows)
                self.events += rows.num_rows
            if batch[1].num_rows:
                newest_ms = max(newest_ms, int(np.max(batch[1].column("at").to_numpy())))
                self._clicked.append((self._clock.monotonic_s(), newest_ms))
            next_s += TICK_S
            self._over.wait(max(0.0, next_s - self._clock.monotonic_s()))
        heartbeat(self._project, log, newest_ms + 24 * HOUR_MS)
        log.close()
