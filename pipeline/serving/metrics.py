"""A replica's Prometheus metrics; never a label per key."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from pipeline.serving.replica import Replica

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """What one server measures. Thread-safe."""

    def __init__(self, replica: Replica) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Status(replica))
        self._requests = Counter(
            "freshet_predict_requests", "Prediction requests.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "freshet_predict_seconds", "Time to answer a prediction.", buckets=_BUCKETS_S, registry=self._registry
        )

    def observe(self, status: int, seconds: float) -> None:
        """Count one answered prediction."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus's text form."""
        return bytes(generate_latest(self._registry))


class _Status(Collector):
    """Reads the replica's status when asked."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def collect(self) -> Iterator[Metric]:
        shards = self._replica.status()["shards"]
        for name, help_text, key in (
            ("freshet_served_generation", "Generation being served.", "generation"),
            ("freshet_served_sequence", "Sequence of the version being served.", "sequence"),
            ("freshet_served_event_time_ms", "Latest event time the served version has learned from.", "last_at_ms"),
            ("freshet_delta_lag_records", "Records of the deltas topic not read yet.", "lag_records"),
        ):
            gauge = GaugeMetricFamily(name, help_text, labels=["shard"])
            for shard in shards:
                gauge.add_metric([str(shard["shard"])], float(shard[key] or 0))
            yield gauge
        rows = GaugeMetricFamily("freshet_served_rows", "Rows serving holds.", labels=["shard", "field"])
        refused = CounterMetricFamily("freshet_deltas_refused", "Deltas and files refused.", labels=["shard", "kind"])
        for shard in shards:
            for field, count in shard["rows"].items():
                rows.add_metric([str(shard["shard"]), field], count)
            for kind, count in shard["refused"].items():
                refused.add_metric([str(shard["shard"]), kind], count)
        yield rows
        yield refused
