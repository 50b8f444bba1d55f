"""What happens to events between creation and the log: delay, disorder, duplicates and poison records."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import Int64s
from pipeline.market.config import MarketConfig


@dataclass(frozen=True)
class Stream:
    """Rows and their arrival times, [n] ms; not sorted."""

    rows: pa.RecordBatch
    arrive_ms: Int64s

    def select(self, index: Int64s) -> "Stream":
        """The rows at `index`, in that order."""
        return Stream(self.rows.take(pa.array(index)), self.arrive_ms[index])

    def __add__(self, other: "Stream") -> "Stream":
        rows = pa.concat_batches([self.rows, other.rows])
        return Stream(rows, np.concatenate([self.arrive_ms, other.arrive_ms]))


class InFlightEvents:
    """Events of one topic that have been created and have not arrived yet. Not thread-safe."""

    def __init__(self) -> None:
        self._stream: Stream | None = None

    def exchange(self, created: Stream, until_ms: int | None) -> Stream:
        """Add `created`; remove and return what arrives before `until_ms` (None: all), in order of arrival."""
        stream = created if self._stream is None else self._stream + created
        stream = stream.select(np.argsort(stream.arrive_ms, kind="stable"))
        count = len(stream.arrive_ms) if until_ms is None else int(np.searchsorted(stream.arrive_ms, until_ms))
        self._stream = stream.select(np.arange(count, len(stream.arrive_ms)))
        return stream.select(np.arange(count))


def arrival_delay_ms(rng: np.random.Generator, config: MarketConfig, count: int) -> Int64s:
    """Delay from creation to arrival, [count] ms: within the disorder, except for late events."""
    disorder_ms = config.disorder_s * 1000
    delay = np.minimum(rng.exponential(disorder_ms / 10, count), 0.8 * disorder_ms)
    late = rng.random(count) < config.late_share
    delay[late] = rng.uniform(2 * disorder_ms, 5 * disorder_ms, int(late.sum()))
    return delay.astype(np.int64)


def click_delay_ms(rng: np.random.Generator, config: MarketConfig, count: int) -> Int64s:
    """Delay from impression to click, [count] ms."""
    delay_s = rng.exponential(config.click_delay_s, count)
    slow = rng.random(count) < config.slow_share
    delay_s[slow] = config.slow_delay_s * np.exp(rng.normal(size=int(slow.sum())))
    return (delay_s * 1000).astype(np.int64)


def add_duplicates(rng: np.random.Generator, config: MarketConfig, stream: Stream) -> Stream:
    """The stream with some of its rows sent a second time, within the disorder."""
    count = len(stream.arrive_ms)
    again = stream.select(np.sort(rng.choice(count, round(count * config.duplicate_share), replace=False)))
    at_ms = again.rows.column("at").to_numpy()
    deadline = np.maximum(at_ms + int(0.9 * config.disorder_s * 1000), again.arrive_ms)
    second = np.minimum(again.arrive_ms + rng.integers(1, 5_000, len(at_ms)), deadline)
    return stream + Stream(again.rows, second)


def poison_records(rng: np.random.Generator, count: int) -> list[bytes]:
    """Undecodable records: random bytes alone, after a frame header with an unknown schema id, or after text."""
    kinds = (b"", b"\x00\xde\xad\xbe\xef", b'{"id": ')
    return [kinds[n % len(kinds)] + rng.bytes(16) for n in range(count)]
