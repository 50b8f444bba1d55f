"""Every metric that springtide exports. Labels have few values: a topic, a shard, a field; never a key, user or item.

`runbooks/metrics.md` documents each metric and the alerts on it.
"""

from prometheus_client import Counter, Histogram

from pipeline.telemetry.registry import REGISTRY, CollectedMetric

_FAST_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SLOW_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


def _histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
    return Histogram(name, text, labels, buckets=buckets, registry=REGISTRY)


def _counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


# The join.
JOIN_EVENTS = CollectedMetric("springtide_join_events_total", "Impressions and clicks read by the join.", ("shard",))
JOIN_SAMPLES = CollectedMetric("springtide_join_samples_total", "Samples emitted, by kind.", ("shard", "kind"))
DEAD_LETTERS = CollectedMetric("springtide_dead_letters_total", "Dead letters, by reason.", ("shard", "reason"))
JOIN_LAG = CollectedMetric(
    "springtide_join_lag_records", "Records of an input partition not read yet.", ("topic", "partition")
)
JOIN_WATERMARK = CollectedMetric(
    "springtide_join_watermark_timestamp_seconds",
    "Watermark of an input partition, as Unix time.",
    ("topic", "partition"),
)
JOIN_HELD = CollectedMetric("springtide_join_held_impressions", "Impressions held in the join's state.", ("shard",))
JOIN_PENDING = CollectedMetric("springtide_join_pending_clicks", "Clicks that wait for their impression.", ("shard",))
JOIN_STATE = CollectedMetric("springtide_join_state_bytes", "Size of the join's saved state.", ("shard",))
ROUND_SECONDS = _histogram(
    "springtide_join_round_seconds",
    "Time to join one round (or one bundle of a live job), append its samples and save the state.",
    (),
    _SLOW_S,
)

# Training.
TRAIN_SAMPLES = CollectedMetric("springtide_train_samples_total", "Samples trained on.", ("shard",))
TRAIN_BATCHES = CollectedMetric("springtide_train_batches_total", "Batches trained on.", ("shard",))
TRAIN_LAG = CollectedMetric(
    "springtide_train_lag_records", "Records of the samples topic not trained on yet.", ("shard",)
)
TRAIN_EVENT_TIME = CollectedMetric(
    "springtide_train_event_timestamp_seconds", "Largest event time trained on, as Unix time.", ("shard",)
)
TRAIN_HALTED = CollectedMetric("springtide_train_halted", "1 if the shard is halted because of bad data.", ("shard",))
LOG_LOSS = CollectedMetric(
    "springtide_validation_log_loss",
    "Progressive validation: mean log loss of samples scored before training on them.",
    ("shard", "label", "window"),
)
NORMALIZED_ENTROPY = CollectedMetric(
    "springtide_validation_normalized_entropy",
    "Progressive validation: log loss divided by the log loss of the mean label.",
    ("shard", "label", "window"),
)
CALIBRATION = CollectedMetric(
    "springtide_validation_calibration_ratio",
    "Progressive validation: predicted divided by observed click rate.",
    ("shard", "label", "window"),
)
TABLE_ROWS = CollectedMetric("springtide_table_rows", "Rows of a field's table.", ("shard", "field"))
TABLE_BYTES = CollectedMetric("springtide_table_bytes", "Memory of a field's table.", ("shard", "field"))
ROWS_ADMITTED = CollectedMetric("springtide_rows_admitted_total", "Keys admitted to a table.", ("shard", "field"))
ROWS_EXPIRED = CollectedMetric(
    "springtide_rows_expired_total", "Rows removed because of their age or the memory budget.", ("shard", "field")
)
IMPORTANCE = CollectedMetric(
    "springtide_row_importance", "Quantiles of the importance of rows.", ("shard", "field", "quantile")
)
CONVERGENCE = CollectedMetric(
    "springtide_row_convergence", "Quantiles of the convergence of rows.", ("shard", "field", "quantile")
)
COMMITTED_GENERATION = CollectedMetric("springtide_committed_generation", "Generation of CURRENT.", ("shard",))
COMMITTED_SEQUENCE = CollectedMetric("springtide_committed_sequence", "Sequence of CURRENT.", ("shard",))
COMMITTED_SAMPLES = CollectedMetric(
    "springtide_committed_samples", "Samples that CURRENT was trained on, since the first version.", ("shard",)
)
COMMIT_STALL = CollectedMetric(
    "springtide_commit_stall_seconds_total", "Time for which commits stopped training.", ("shard",)
)
COMMIT_SECONDS = _histogram(
    "springtide_commit_seconds",
    "Time from a commit's batch boundary until its delta is published.",
    ("shard",),
    _SLOW_S,
)

# Publishing.
PUBLISH_SECONDS = _histogram("springtide_publish_seconds", "Time to write one delta.", ("shard", "level"), _SLOW_S)
PUBLISHED_BYTES = _counter("springtide_published_bytes", "Bytes of published deltas.", ("shard", "level"))
PUBLISHED_ROWS = _counter(
    "springtide_published_rows",
    "Rows in published deltas, by precision; 0 bits counts removed rows.",
    ("shard", "level", "bits"),
)

# Serving.
SERVED_GENERATION = CollectedMetric("springtide_served_generation", "Generation of the served version.", ("shard",))
SERVED_SEQUENCE = CollectedMetric("springtide_served_sequence", "Sequence of the served version.", ("shard",))
SERVED_EVENT_TIME = CollectedMetric(
    "springtide_served_event_timestamp_seconds", "Largest event time in the served version, as Unix time.", ("shard",)
)
SERVED_ROWS = CollectedMetric("springtide_served_rows", "Rows in the served view.", ("shard", "field"))
SERVED_BYTES = CollectedMetric("springtide_served_bytes", "Payload of the rows in the served view.", ("shard", "field"))
DELTA_LAG = CollectedMetric("springtide_delta_lag_records", "Records of the deltas topic not read yet.", ("shard",))
DELTAS_REFUSED = CollectedMetric(
    "springtide_deltas_refused_total", "Deltas and files that serving refused.", ("shard", "kind")
)
COMMIT_VISIBLE = _histogram(
    "springtide_commit_visible_seconds",
    "Time from the append of a realtime delta until serving uses it.",
    ("shard",),
    _FAST_S,
)
FRESHNESS = _histogram(
    "springtide_freshness_seconds",
    "Age of the latest event in a realtime delta at the time serving starts to use it.",
    ("shard",),
    _SLOW_S,
)
PREDICT_REQUESTS = _counter("springtide_predict_requests", "Prediction requests, by HTTP status.", ("status",))
PREDICT_SECONDS = _histogram("springtide_predict_seconds", "Time to serve a prediction request.", (), _FAST_S)

# The log on Kafka, and shards on Flink.
LOG_READ_SECONDS = _histogram(
    "springtide_log_read_seconds",
    "Duration of reads that returned records, including the wait for the first record.",
    ("topic",),
    _SLOW_S,
)
LOG_APPEND_SECONDS = _histogram(
    "springtide_log_append_seconds", "Duration of appends, until they are committed.", ("topic",), _SLOW_S
)
LOG_FAILURES = _counter("springtide_log_failures", "Calls to Kafka that failed, including those retried.")
LOG_WAITING = CollectedMetric("springtide_log_waiting_seconds", "Age of the longest-running call to Kafka.")
LOG_STALLS = _counter("springtide_log_stalls", "Kafka readers that stalled and were replaced.")
SHARD_FAILURES = _counter(
    "springtide_shard_failures", "Bundles and turns of a live shard that raised an error.", ("kind", "shard")
)

# The process.
DISK_FREE = CollectedMetric("springtide_disk_free_bytes", "Free space on the disk of the state folder.")
DISK_SIZE = CollectedMetric("springtide_disk_size_bytes", "Size of the disk of the state folder.")
READING_FAILURES = _counter("springtide_reading_failures", "Scrapes in which a reader failed.", ("reader",))
