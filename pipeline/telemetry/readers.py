"""Readers: functions that return the current values of metrics, called at each scrape. Thread-safe."""

from collections.abc import Iterator

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.errors import SpringtideError
from pipeline.telemetry.metrics import READING_FAILURES
from pipeline.telemetry.registry import REGISTRY, CollectedMetric, Reader, Reading

logger = structlog.get_logger(__name__)


class _ReaderCollector(Collector):
    def __init__(self) -> None:
        self.readers: dict[str, Reader] = {}

    def describe(self) -> Iterator[Metric]:
        """Empty: the metrics depend on the registered readers."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, reader in list(self.readers.items()):
            for reading in _read(name, reader):
                metric = reading.metric
                family = families.get(metric.name) or families.setdefault(metric.name, _family(metric))
                family.add_metric(reading.labels, reading.value)
        yield from families.values()


def _read(name: str, reader: Reader) -> list[Reading]:
    """All readings of one reader, or none if it fails (its log is unavailable, say); other readers are not affected."""
    try:
        return list(reader())
    except (SpringtideError, OSError) as failure:
        READING_FAILURES.labels(name).inc()
        logger.warning("metrics cannot be read", reader=name, problem=str(failure))
        return []


def _family(metric: CollectedMetric) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.name.endswith("_total") else GaugeMetricFamily
    return kind(metric.name, metric.help, labels=metric.labels)


_collector = _ReaderCollector()
REGISTRY.register(_collector)


def register(name: str, reader: Reader) -> None:
    """Call `reader` at every scrape, from any thread; it replaces an earlier reader of that name."""
    _collector.readers[name] = reader


def unregister(name: str) -> None:
    """Stop calling the reader of that name, if there is one."""
    _collector.readers.pop(name, None)
