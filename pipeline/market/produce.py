"""Appends a market's hours to the log as a producer would: packed, in order of arrival, with poison in between."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import Int64s
from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import EventWriter, append_heartbeat
from pipeline.logs.interface.log import Log
from pipeline.market.market import HOUR_MS, Market, MarketHour

_SLICES = 12
"""Appends per hour and topic; each append is durable and costs milliseconds."""
_SLICE_MS = HOUR_MS // _SLICES


def produce(log: Log, project: Project, market: Market, hours: Iterable[int]) -> list[MarketHour]:
    """Append the events that arrive in `hours`, in slices of five minutes, then heartbeats; returns the hours.

    The heartbeats carry the end of the last hour minus the disorder: no earlier event can still arrive in time.
    """
    impressions, clicks = EventWriter(project, log, "impressions"), EventWriter(project, log, "clicks")
    produced = []
    for hour in hours:
        arrived = market.events(hour)
        begin_ms = market.end_at_ms(hour) - HOUR_MS
        poison = _poison_by_slice(arrived)
        impression_slices = _slices(arrived.impressions, arrived.impressions_arrive_ms, begin_ms)
        click_slices = _slices(arrived.clicks, arrived.clicks_arrive_ms, begin_ms)
        for number, (shown, clicked) in enumerate(zip(impression_slices, click_slices, strict=True)):
            impressions.append(shown)
            clicks.append(clicked)
            for value in poison.get(number, []):
                log.append(impressions.topic, number % impressions.partitions, [value])
        produced.append(arrived)
    if produced:
        at_ms = market.end_at_ms(produced[-1].hour) - round(market.config.disorder_s * 1000)
        append_heartbeat(project, log, at_ms)
    return produced


def _slices(rows: pa.RecordBatch, arrive_ms: Int64s, begin_ms: int) -> Iterator[pa.RecordBatch]:
    """One batch per slice of the hour; rows that arrive after the hour belong to the last slice."""
    cuts = np.searchsorted(arrive_ms, begin_ms + _SLICE_MS * np.arange(1, _SLICES))
    edges = [0, *cuts.tolist(), rows.num_rows]
    return (rows.slice(start, stop - start) for start, stop in pairwise(edges))


def _poison_by_slice(arrived: MarketHour) -> dict[int, list[bytes]]:
    """The hour's poison records, distributed over its slices."""
    by_slice: dict[int, list[bytes]] = {}
    for number, value in enumerate(arrived.poison):
        by_slice.setdefault((5 * number + 3) % _SLICES, []).append(value)
    return by_slice
