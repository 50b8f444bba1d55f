"""Puts a market's hours into the log as a producer would: packed, in order of arrival, poison in between."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import EventWriter, append_heartbeat
from pipeline.logs.log import Log
from pipeline.market.arrival import Int64s
from pipeline.market.market import HOUR_MS, Market, MarketHour

_SLICES = 12
"""Appends per hour and topic: an append is durable, so each costs milliseconds."""
_SLICE_MS = HOUR_MS // _SLICES


def produce(log: Log, project: Project, market: Market, hours: Iterable[int]) -> list[MarketHour]:
    """Append what arrives in `hours`, five minutes at a time, then heartbeats; returns the hours with their truth.

    The heartbeats stand at the end of the last hour, less the disorder: nothing older can still come on time.
    """
    impressions, clicks = EventWriter(project, log, "impressions"), EventWriter(project, log, "clicks")
    made = []
    for hour in hours:
        arrived = market.events(hour)
        begin_ms = market.end_at_ms(hour) - HOUR_MS
        poison = _poison_by_slice(arrived)
        shown = _slices(arrived.impressions, arrived.impressions_arrive_ms, begin_ms)
        pressed = _slices(arrived.clicks, arrived.clicks_arrive_ms, begin_ms)
        for number, (shown_part, pressed_part) in enumerate(zip(shown, pressed, strict=True)):
            impressions.append(shown_part)
            clicks.append(pressed_part)
            for value in poison.get(number, []):
                log.append(impressions.topic, number % impressions.partitions, [value])
        made.append(arrived)
    if made:
        at_ms = market.end_at_ms(made[-1].hour) - round(market.config.disorder_s * 1000)
        append_heartbeat(project, log, at_ms)
    return made


def _slices(rows: pa.RecordBatch, arrive_ms: Int64s, begin_ms: int) -> Iterator[pa.RecordBatch]:
    """One batch per slice of the hour; whatever arrives after it belongs to the last."""
    cuts = np.searchsorted(arrive_ms, begin_ms + _SLICE_MS * np.arange(1, _SLICES))
    edges = [0, *cuts.tolist(), rows.num_rows]
    return (rows.slice(start, stop - start) for start, stop in pairwise(edges))


def _poison_by_slice(arrived: MarketHour) -> dict[int, list[bytes]]:
    """The hour's poison, spread over its slices."""
    spread: dict[int, list[bytes]] = {}
    for number, value in enumerate(arrived.poison):
        spread.setdefault((5 * number + 3) % _SLICES, []).append(value)
    return spread
