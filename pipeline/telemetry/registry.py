"""The metrics registry of this process, and the kinds of metrics in it.

Events are counted as they happen, once per round, commit, delta or request: `Counter` and `Histogram` of
prometheus_client. State is read from live objects at each scrape (`CollectedMetric`), so hot paths do not update it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics

from pipeline.process.clock import Clock

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)


@dataclass(frozen=True)
class Reading:
    """The value of a metric at the time of a scrape."""

    metric: "CollectedMetric"
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True)
class CollectedMetric:
    """A metric whose value is read at each scrape: a counter if its name ends in `_total`, else a gauge."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def reading(self, value: float, *labels: object) -> Reading:
        """`value` with label values in the order of `self.labels`."""
        assert len(labels) == len(self.labels), (self.name, labels)
        return Reading(self, tuple(map(str, labels)), float(value))


Reader = Callable[[], Iterable[Reading]]


@contextmanager
def timed(histogram: Histogram, clock: Clock) -> Iterator[None]:
    """Observe the duration of the `with` block in seconds, unless the block raises."""
    began_at_s = clock.monotonic_s()
    yield
    histogram.observe(clock.monotonic_s() - began_at_s)
