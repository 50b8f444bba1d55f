"""What a process tells of itself: every metric is declared here, and answered to Prometheus from here.

What happens is noted where it happens, once per round, commit, delta or request. What *is* gets read from live objects
when Prometheus asks: `watch` names a reader, and hot paths know nothing of it. Labels are few and bounded: a topic, a
shard, a field, a reason; never a key, a user or an item. Thread-safe.
"""

import atexit
import json
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from pipeline.configuration.project import Project
from pipeline.errors import InputError, SpringtideError
from pipeline.formats.atomic_file import write_atomically
from pipeline.process.clock import Clock

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PORTS = 16
"""Ports that are tried from the configured one on: several processes share one configuration."""

_END_OF_PORTS = 65_536

_talk = structlog.get_logger(__name__)
_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SLOW = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

disable_created_metrics()  # type: ignore[no-untyped-call]
_registry = CollectorRegistry()
ProcessCollector(registry=_registry)


@dataclass(frozen=True)
class Reading:
    """One value of one metric at one moment."""

    metric: "Shown"
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True)
class Shown:
    """A metric that is read when asked for; a counter where its name ends in `_total`, else a gauge."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def reading(self, value: float, *labels: object) -> Reading:
        """`value` under `labels`, in the order they are declared."""
        assert len(labels) == len(self.labels), (self.name, labels)
        return Reading(self, tuple(map(str, labels)), float(value))


Reader = Callable[[], Iterable[Reading]]


def _happens(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
    return Histogram(name, text, labels, buckets=buckets, registry=_registry)


# The join.
JOIN_EVENTS = Shown("springtide_join_events_total", "Impressions and clicks taken in.", ("shard",))
JOIN_SAMPLES = Shown("springtide_join_samples_total", "Samples said, by kind.", ("shard", "kind"))
DEAD_LETTERS = Shown("springtide_dead_letters_total", "Events set aside, by reason.", ("shard", "reason"))
JOIN_LAG = Shown("springtide_join_lag_records", "Records of an input not read yet.", ("topic", "partition"))
JOIN_WATERMARK = Shown(
    "springtide_join_watermark_timestamp_seconds", "Watermark of an input, as Unix time.", ("topic", "partition")
)
JOIN_HELD = Shown("springtide_join_held_impressions", "Impressions held for clicks.", ("shard",))
JOIN_PENDING = Shown("springtide_join_pending_clicks", "Clicks held for their impression.", ("shard",))
JOIN_STATE = Shown("springtide_join_state_bytes", "Saved state of the join.", ("shard",))
ROUND_SECONDS = _happens(
    "springtide_join_round_seconds", "Time to join, say and save one round, or one bundle live.", (), _SLOW
)

# Training.
TRAIN_SAMPLES = Shown("springtide_train_samples_total", "Samples learned from.", ("shard",))
TRAIN_BATCHES = Shown("springtide_train_batches_total", "Batches learned from.", ("shard",))
TRAIN_LAG = Shown("springtide_train_lag_records", "Records of the samples topic not learned from yet.", ("shard",))
TRAIN_EVENT_TIME = Shown(
    "springtide_train_event_timestamp_seconds", "Newest event learned from, as Unix time.", ("shard",)
)
TRAIN_HALTED = Shown("springtide_train_halted", "1 while bad data has stopped the shard.", ("shard",))
LOG_LOSS = Shown(
    "springtide_validation_log_loss", "Mean log loss of samples scored before learning.", ("shard", "label", "window")
)
NORMALIZED_ENTROPY = Shown(
    "springtide_validation_normalized_entropy", "Log loss over that of the mean label.", ("shard", "label", "window")
)
CALIBRATION = Shown(
    "springtide_validation_calibration_ratio", "Predicted over observed clicks.", ("shard", "label", "window")
)
TABLE_ROWS = Shown("springtide_table_rows", "Rows of a field.", ("shard", "field"))
TABLE_BYTES = Shown("springtide_table_bytes", "Memory of a field's table.", ("shard", "field"))
ROWS_ADMITTED = Shown("springtide_rows_admitted_total", "Keys that got a row.", ("shard", "field"))
ROWS_EXPIRED = Shown("springtide_rows_expired_total", "Rows removed as unseen or worthless.", ("shard", "field"))
IMPORTANCE = Shown("springtide_row_importance", "Importance of rows, at a quantile.", ("shard", "field", "quantile"))
CONVERGENCE = Shown("springtide_row_convergence", "Convergence of rows, at a quantile.", ("shard", "field", "quantile"))
COMMITTED_GENERATION = Shown("springtide_committed_generation", "Generation of CURRENT.", ("shard",))
COMMITTED_SEQUENCE = Shown("springtide_committed_sequence", "Sequence of CURRENT.", ("shard",))
COMMITTED_SAMPLES = Shown("springtide_committed_samples", "Samples CURRENT has learned from, ever.", ("shard",))
COMMIT_STALL = Shown("springtide_commit_stall_seconds_total", "Time training stood still for commits.", ("shard",))
COMMIT_SECONDS = _happens(
    "springtide_commit_seconds", "From a commit's batch boundary until its delta is published.", ("shard",), _SLOW
)

# Publishing.
PUBLISH_SECONDS = _happens("springtide_publish_seconds", "Time to write one delta.", ("shard", "level"), _SLOW)
PUBLISHED_BYTES = Counter("springtide_published_bytes", "Bytes of deltas.", ("shard", "level"), registry=_registry)
PUBLISHED_ROWS = Counter(
    "springtide_published_rows", "Rows in deltas, by precision; 0 bits are removals.", ("shard", "level", "bits"),
    registry=_registry,
)  # fmt: skip

# Serving.
SERVED_GENERATION = Shown("springtide_served_generation", "Generation being served.", ("shard",))
SERVED_SEQUENCE = Shown("springtide_served_sequence", "Sequence of the version being served.", ("shard",))
SERVED_EVENT_TIME = Shown(
    "springtide_served_event_timestamp_seconds", "Newest event the served version knows, as Unix time.", ("shard",)
)
SERVED_ROWS = Shown("springtide_served_rows", "Rows serving holds.", ("shard", "field"))
SERVED_BYTES = Shown("springtide_served_bytes", "Payload of the rows serving holds.", ("shard", "field"))
DELTA_LAG = Shown("springtide_delta_lag_records", "Records of the deltas topic not read yet.", ("shard",))
DELTAS_REFUSED = Shown("springtide_deltas_refused_total", "Deltas and files refused.", ("shard", "kind"))
COMMIT_VISIBLE = _happens(
    "springtide_commit_visible_seconds",
    "From the append of a realtime delta until serving shows it.",
    ("shard",),
    _FAST,
)
FRESHNESS = _happens(
    "springtide_freshness_seconds", "Age of a realtime delta's newest event when serving shows it.", ("shard",), _SLOW
)
PREDICT_REQUESTS = Counter("springtide_predict_requests", "Prediction requests.", ("status",), registry=_registry)
PREDICT_SECONDS = _happens("springtide_predict_seconds", "Time to answer a prediction.", (), _FAST)

# The log on Kafka, and shards on Flink.
LOG_READ_SECONDS = _happens(
    "springtide_log_read_seconds", "Reads that gave records, the wait for the first included.", ("topic",), _SLOW
)
LOG_APPEND_SECONDS = _happens("springtide_log_append_seconds", "Appends, until they are committed.", ("topic",), _SLOW)
LOG_FAILURES = Counter("springtide_log_failures", "Calls to Kafka that failed, tried again or not.", registry=_registry)
LOG_WAITING = Shown("springtide_log_waiting_seconds", "How long the oldest call to Kafka under way has waited.")
LOG_STALLS = Counter("springtide_log_stalls", "Readers that stalled and were built anew.", registry=_registry)
SHARD_FAILURES = Counter(
    "springtide_shard_failures", "Bundles and turns of a live shard that ended with an error.", ("kind", "shard"),
    registry=_registry,
)  # fmt: skip

# The process.
DISK_FREE = Shown("springtide_disk_free_bytes", "Room on the disk of the state folder.")
DISK_SIZE = Shown("springtide_disk_size_bytes", "Size of the disk of the state folder.")
READING_FAILURES = Counter(
    "springtide_reading_failures", "Scrapes in which a reader could not read.", ("reader",), registry=_registry
)


class _Watched(Collector):
    """Asks every reader when scraped."""

    def __init__(self) -> None:
        self.readers: dict[str, Reader] = {}

    def describe(self) -> Iterator[Metric]:
        """Nothing: what there is depends on who reads."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, reader in list(self.readers.items()):
            for reading in self._ask(name, reader):
                shown = reading.metric
                family = families.get(shown.name) or families.setdefault(shown.name, _family(shown))
                family.add_metric(reading.labels, reading.value)
        yield from families.values()

    @staticmethod
    def _ask(name: str, reader: Reader) -> list[Reading]:
        """All readings or none: what fails, a log that is away say, hides no other reader."""
        try:
            return list(reader())
        except (SpringtideError, OSError) as failure:
            READING_FAILURES.labels(name).inc()
            _talk.warning("metrics cannot be read", reader=name, problem=str(failure))
            return []


def _family(shown: Shown) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if shown.name.endswith("_total") else GaugeMetricFamily
    return kind(shown.name, shown.help, labels=shown.labels)


_watched = _Watched()
_registry.register(_watched)


def watch(name: str, reader: Reader) -> None:
    """Ask `reader` at every scrape from now on, in any thread, instead of an earlier one of that name."""
    _watched.readers[name] = reader


def forget(name: str) -> None:
    """Ask the reader of that name no more."""
    _watched.readers.pop(name, None)


@contextmanager
def timed(histogram: Histogram, clock: Clock) -> Iterator[None]:
    """Note how long what is inside takes, unless it fails."""
    began_at_s = clock.monotonic_s()
    yield
    histogram.observe(clock.monotonic_s() - began_at_s)


def text() -> bytes:
    """Every metric of this process, in Prometheus's text form."""
    return bytes(generate_latest(_registry))


@dataclass(frozen=True)
class _Open:
    port: int
    stop: Callable[[], None]


_turn = threading.Lock()
_open: _Open | None = None


def serve(project: Project, process: str) -> int | None:
    """Answer `GET /metrics` from now on; returns the port, or None where `[telemetry] port` is off.

    One port per process: another call changes nothing and returns the same port. The port taken is told to Prometheus
    by a file, `telemetry/PROCESS.json` in the state folder, which goes when the process ends in order.

    Args:
        project: whose `[telemetry]` holds.
        process: what Prometheus is to call this process, such as `train`; unique on the state folder.

    Raises:
        InputError: every port that may be used is taken.
    """
    global _open
    if project.config.telemetry.port is None:
        return None
    with _turn:
        if _open is None:
            watch("disk", lambda: _disk(project.root))
            _open = _listen(project, process)
        return _open.port


def stop_serving() -> None:
    """Close the port that `serve` opened, if it did; `serve` may open another."""
    global _open
    with _turn:
        if _open is not None:
            atexit.unregister(_open.stop)
            _open.stop()
            forget("disk")
        _open = None


def _listen(project: Project, process: str) -> _Open:
    """The first port that is free. Raises InputError."""
    config = project.config.telemetry
    first = config.port or 0
    problem = ""
    for port in range(first, min(first + PORTS, _END_OF_PORTS) if first else 1):
        try:
            return _listen_at(project, process, port)
        except OSError as failure:
            problem = str(failure)
    raise InputError(f"cannot listen on {config.host}:{first}, nor soon after: {problem}. hint: set telemetry.port = 0")


def _listen_at(project: Project, process: str, port: int) -> _Open:
    """Raises OSError where the port is taken."""
    server, thread = start_http_server(port, project.config.telemetry.host, _registry)
    announced = _announce(project, process, server.server_port)

    def stop() -> None:
        # First, for whoever told this process to end may not wait for the rest.
        _withdraw(*announced)
        server.shutdown()
        server.server_close()
        thread.join()

    atexit.register(stop)
    return _Open(server.server_port, stop)


def _announce(project: Project, process: str, port: int) -> tuple[Path, bytes]:
    """Tell Prometheus of the port, in the form of its file-based service discovery."""
    labels = {"job": "springtide", "model": project.config.name, "instance": f"{project.config.name}/{process}"}
    target = {"targets": [f"{project.config.telemetry.host}:{port}"], "labels": labels}
    path, content = project.telemetry / f"{process}.json", json.dumps([target]).encode()
    write_atomically(path, [content])
    return path, content


def _withdraw(path: Path, content: bytes) -> None:
    """Take back what was announced, unless a successor has announced itself there."""
    if path.exists() and path.read_bytes() == content:
        path.unlink()


def _disk(folder: Path) -> list[Reading]:
    usage = shutil.disk_usage(folder)
    return [DISK_FREE.reading(usage.free), DISK_SIZE.reading(usage.total)]
