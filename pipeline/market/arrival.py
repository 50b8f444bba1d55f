"""What happens to events between being made and being logged: delay, disorder, doubling, and plain nonsense."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.market.config import MarketConfig

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """Rows and when each arrives, [n] ms; in no particular order."""

    rows: pa.RecordBatch
    arrive_ms: Int64s

    def take(self, index: Int64s) -> "Stream":
        """The rows at `index`, in that order."""
        return Stream(self.rows.take(pa.array(index)), self.arrive_ms[index])

    def plus(self, other: "Stream") -> "Stream":
        """Both, one after the other."""
        rows = pa.concat_batches([self.rows, other.rows])
        return Stream(rows, np.concatenate([self.arrive_ms, other.arrive_ms]))


class Arrivals:
    """Events under way to one topic: those of earlier hours that have not arrived yet. Not thread-safe."""

    def __init__(self) -> None:
        self._under_way: Stream | None = None

    def release(self, made: Stream, until_ms: int | None) -> Stream:
        """Add `made`, give out what arrives before `until_ms` (None: all), in order of arrival."""
        everything = made if self._under_way is None else self._under_way.plus(made)
        everything = everything.take(np.argsort(everything.arrive_ms, kind="stable"))
        count = len(everything.arrive_ms) if until_ms is None else int(np.searchsorted(everything.arrive_ms, until_ms))
        self._under_way = everything.take(np.arange(count, len(everything.arrive_ms)))
        return everything.take(np.arange(count))


def arrival_delay_ms(rng: np.random.Generator, config: MarketConfig, count: int) -> Int64s:
    """How long events are under way, [count] ms: inside the disorder, but for the late ones."""
    disorder_ms = config.disorder_s * 1000
    delay = np.minimum(rng.exponential(disorder_ms / 10, count), 0.8 * disorder_ms)
    late = rng.random(count) < config.late_share
    delay[late] = rng.uniform(2 * disorder_ms, 5 * disorder_ms, int(late.sum()))
    return delay.astype(np.int64)


def click_delay_ms(rng: np.random.Generator, config: MarketConfig, count: int) -> Int64s:
    """From impression to click, [count] ms."""
    delay_s = rng.exponential(config.click_delay_s, count)
    slow = rng.random(count) < config.slow_share
    delay_s[slow] = config.slow_delay_s * np.exp(rng.normal(size=int(slow.sum())))
    return (delay_s * 1000).astype(np.int64)


def resend(rng: np.random.Generator, config: MarketConfig, stream: Stream) -> Stream:
    """The stream with some of its rows sent a second time, within the disorder."""
    count = len(stream.arrive_ms)
    again = stream.take(np.sort(rng.choice(count, round(count * config.duplicate_share), replace=False)))
    at_ms = again.rows.column("at").to_numpy()
    deadline = np.maximum(at_ms + int(0.9 * config.disorder_s * 1000), again.arrive_ms)
    second = np.minimum(again.arrive_ms + rng.integers(1, 5_000, len(at_ms)), deadline)
    return stream.plus(Stream(again.rows, second))


def poison(rng: np.random.Generator, count: int) -> list[bytes]:
    """Records that look like nothing, like our framing with an unknown schema, or like text."""
    kinds = (b"", b"\x00\xde\xad\xbe\xef", b'{"id": ')
    return [kinds[n % len(kinds)] + rng.bytes(16) for n in range(count)]
