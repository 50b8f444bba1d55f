"""Every metric that springtide exports. Labels have few values: a topic, a shard, a table; never a key, user or item.

`runbooks/metrics.md` documents each metric and the alerts on it.
"""

from prometheus_client import Counter, Histogram

from pipeline.telemetry.registry import REGISTRY, CollectedMetric

_FAST_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SLOW_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


def _read(name: str, text: str, *labels: str) -> CollectedMetric:
    return CollectedMetric(name, text, labels)


def _count(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _fast(name: str, text: str, *labels: str) -> Histogram:
    return Histogram(name, text, labels, buckets=_FAST_S, registry=REGISTRY)


def _slow(name: str, text: str, *labels: str) -> Histogram:
    return Histogram(name, text, labels, buckets=_SLOW_S, registry=REGISTRY)


# The join.
JOIN_EVENTS = _read("springtide_join_events_total", "Impressions and clicks read by the join.", "shard")
JOIN_SAMPLES = _read("springtide_join_samples_total", "Samples emitted, by kind.", "shard", "kind")
DEAD_LETTERS = _read("springtide_dead_letters_total", "Dead letters, by reason.", "shard", "reason")
JOIN_LAG = _read("springtide_join_lag_records", "Records of an input partition not read yet.", "topic", "partition")
JOIN_WATERMARK = _read(
    "springtide_join_watermark_timestamp_seconds", "Watermark of an input partition, Unix time.", "topic", "partition"
)
JOIN_HELD = _read("springtide_join_held_impressions", "Impressions held in the join's state.", "shard")
JOIN_PENDING = _read("springtide_join_pending_clicks", "Clicks that wait for their impression.", "shard")
JOIN_STATE = _read("springtide_join_state_bytes", "Size of the join's saved state.", "shard")
ROUND_SECONDS = _slow(
    "springtide_join_round_seconds", "Time to join, append and save one round, or one bundle of a job on Flink."
)

# Training.
TRAIN_SAMPLES = _read("springtide_train_samples_total", "Samples trained on.", "shard")
TRAIN_BATCHES = _read("springtide_train_batches_total", "Batches trained on.", "shard")
TRAIN_LAG = _read("springtide_train_lag_records", "Records of the samples topic not trained on yet.", "shard")
TRAIN_EVENT_TIME = _read(
    "springtide_train_event_timestamp_seconds", "Largest event time trained on, Unix time.", "shard"
)
TRAIN_PENALTY = _read(
    "springtide_train_penalty", "Sum of the network's own losses in the latest batch: regularisers, add_loss.", "shard"
)
TRAIN_HALTED = _read("springtide_train_halted", "1 if the shard is halted because of bad data.", "shard")
GATE_STATE = _read("springtide_gate_state", "0 healthy, 1 uncertain, 2 corrupted.", "shard")
GATE_EVIDENCE = _read(
    "springtide_gate_evidence_ratio", "Evidence of a change by signal, as a multiple of its threshold.", "shard", "kind"
)
GATE_FILE_CHECKS = _count(
    "springtide_gate_file_checks_total",
    "Checks of files that are due while the gate is not healthy, by outcome: passed, loss, calibration, unmeasured.",
    "shard",
    "kind",
)
GATE_ROLLBACKS = _read("springtide_gate_rollbacks_total", "Rollbacks by the gate since the start.", "shard")
LABEL_WITHOUT_POSITIVE = _read(
    "springtide_train_label_without_positive",
    "1 if the label had no positive in train.positive_within_samples samples.",
    "shard",
    "label",
)
LOG_LOSS = _read(
    "springtide_validation_log_loss", "Mean log loss of samples scored before training.", "shard", "label", "window"
)
NORMALIZED_ENTROPY = _read(
    "springtide_validation_normalized_entropy",
    "Log loss divided by that of the mean label.",
    "shard",
    "label",
    "window",
)
CALIBRATION = _read(
    "springtide_validation_calibration_ratio",
    "Predicted divided by observed rate or sum.",
    "shard",
    "label",
    "window",
)
LOSS = _read(
    "springtide_validation_loss",
    "Mean loss of samples scored before training, of a label that is not logistic.",
    "shard",
    "label",
    "window",
)
RMSE = _read(
    "springtide_validation_rmse",
    "Root mean squared error of samples scored before training, of a label that is not logistic.",
    "shard",
    "label",
    "window",
)
RECALL = _read(
    "springtide_validation_recall_ratio",
    "Share of positives, scored before training, whose item is among the first of the batch and of drawn items.",
    "shard",
    "label",
    "window",
)
TOP_SHARE = _read(
    "springtide_validation_top_share_ratio",
    "Share of the teacher's top k of a list in the label's own top m.",
    "shard",
    "label",
    "window",
)
HIT_RATE = _read(
    "springtide_validation_hit_rate_ratio", "Share of clicks in the top k of their list.", "shard", "label", "window"
)
TABLE_ROWS = _read("springtide_table_rows", "Rows of a table.", "shard", "table")
TABLE_BYTES = _read("springtide_table_bytes", "Memory of a table.", "shard", "table")
COLD_ROWS = _read("springtide_cold_rows", "Rows of a table that are only on disk.", "shard", "table")
COLD_READS = _read("springtide_cold_reads_total", "Rows of a table read from disk for training.", "shard", "table")
PREPARE_MISSES = _read(
    "springtide_prepare_misses_total",
    "Rows that a batch needed from disk, not read ahead.",
    "shard",
    "table",
)
ROWS_SWAPPED_OUT = _read("springtide_rows_swapped_out_total", "Rows dropped from memory.", "shard", "table")
ROWS_ADMITTED = _read("springtide_rows_admitted_total", "Keys admitted to a table.", "shard", "table")
ROWS_EXPIRED = _read("springtide_rows_expired_total", "Rows removed as unseen or least important.", "shard", "table")
IMPORTANCE = _read("springtide_row_importance", "Quantiles of the importance of rows.", "shard", "table", "quantile")
INPUT_IMPORTANCE = _read(
    "springtide_input_importance",
    "Estimated rise of the loss if the values of a field or dense input were shuffled among samples.",
    "shard",
    "input",
)
TABLE_IMPORTANCE = _read(
    "springtide_table_importance",
    "Estimated rise of the loss if the values of all fields of a table were shuffled among samples.",
    "shard",
    "table",
)
CONVERGENCE = _read("springtide_row_convergence", "Quantiles of the convergence of rows.", "shard", "table", "quantile")
COMMITTED_GENERATION = _read("springtide_committed_generation", "Generation of CURRENT.", "shard")
COMMITTED_SEQUENCE = _read("springtide_committed_sequence", "Sequence of CURRENT.", "shard")
COMMITTED_SAMPLES = _read("springtide_committed_samples", "Samples that CURRENT was trained on in total.", "shard")
SERVING_LOSS = _read(
    "springtide_publish_loss_ratio",
    "Loss of serving by what deltas withhold and round, relative to the trainer's: predicted of the last commit, "
    "measured of the one before.",
    "shard",
    "kind",
)
WITHHELD_ROWS = _read(
    "springtide_withheld_rows", "Rows that sending would improve and the last delta withholds.", "shard", "table"
)
COMMIT_STALL = _read("springtide_commit_stall_seconds_total", "Time for which commits stopped training.", "shard")
COMMIT_SECONDS = _slow(
    "springtide_commit_seconds", "Time from a commit's batch boundary until its delta is published.", "shard"
)
COMMITTED_BYTES = _count("springtide_committed_bytes", "Bytes of the files of versions that were committed.", "shard")
MERGED_BYTES = _count("springtide_merged_bytes", "Bytes of the files that merges of versions wrote.", "shard")

# Publishing.
PUBLISH_SECONDS = _slow("springtide_publish_seconds", "Time to write one delta.", "shard", "level")
PUBLISHED_BYTES = _count("springtide_published_bytes", "Bytes of published deltas.", "shard", "level")
PUBLISHED_ROWS = _count(
    "springtide_published_rows", "Rows in published deltas; 0 bits: removed rows.", "shard", "level", "bits"
)

# Serving.
SERVED_GENERATION = _read("springtide_served_generation", "Generation of the served version.", "shard")
SERVED_SEQUENCE = _read("springtide_served_sequence", "Sequence of the served version.", "shard")
SERVED_EVENT_TIME = _read("springtide_served_event_timestamp_seconds", "Largest served event time, Unix time.", "shard")
SERVED_PART = _read("springtide_served_part", "1 for the part of the model that a replica serves.", "part")
SERVED_ROWS = _read("springtide_served_rows", "Rows in the served view.", "shard", "table")
SERVED_BYTES = _read("springtide_served_bytes", "Payload of the rows in the served view.", "shard", "table")
DELTA_LAG = _read("springtide_delta_lag_records", "Records of the deltas topic not read yet.", "shard")
DELTAS_REFUSED = _read("springtide_deltas_refused_total", "Deltas and files that serving refused.", "shard", "kind")
COMMIT_VISIBLE = _fast(
    "springtide_commit_visible_seconds", "Time from the append of a realtime delta until serving uses it.", "shard"
)
FRESHNESS = _slow(
    "springtide_freshness_seconds", "Age of a realtime delta's latest event when serving starts to use it.", "shard"
)
PREDICT_REQUESTS = _count("springtide_predict_requests", "Prediction requests, by HTTP status.", "status")
PREDICT_SECONDS = _fast("springtide_predict_seconds", "Time to serve a prediction request.")
RECALL_QUERIES = _count("springtide_recall_queries", "Users for whom items were searched.")
RECALL_SURVIVORS = _count("springtide_recall_survivors", "Items scored exactly in these searches.")
RECALL_PASSES = _count("springtide_recall_passes", "Passes over all items in these searches.")
RECALL_SEQUENCE = _read("springtide_recall_sequence", "Sequence of the version whose towers recall uses.", "shard")
RECALL_ITEMS = _read("springtide_recall_items", "Items that recall searches.")
RECALL_UNSCORED = _count("springtide_recall_items_unscored", "Items left out of answers: no finite prediction.")
RECALL_WITHHELD = _read("springtide_recall_items_withheld", "Items that recall does not find: no finite vector.")
RECALL_UNREADABLE = _read("springtide_recall_file_unreadable", "1 while the file of items cannot be read.")
RECALL_EMBEDDED_AT = _read("springtide_recall_embedded_timestamp_seconds", "When all items were embedded, Unix time.")
RECALL_OVERLAP = _read("springtide_recall_overlap_ratio", "Best items that the newest version measured keeps.")
RECALL_REFUSED = _count("springtide_recall_items_refused", "Changes in the topic of items that were left out.")
HTTP_REQUESTS = _count("springtide_http_requests", "HTTP requests of every kind to a replica, by status.", "status")
HTTP_CONNECTIONS = _read("springtide_http_connections", "Open HTTP connections of a replica.")
HTTP_CLOSED = _count(
    "springtide_http_connections_closed", "Connections closed because their client was slow or too many.", "reason"
)

# The log on Kafka, and shards on Flink.
LOG_READ_SECONDS = _slow(
    "springtide_log_read_seconds", "Duration of reads that returned records, with the wait for the first.", "topic"
)
LOG_APPEND_SECONDS = _slow("springtide_log_append_seconds", "Duration of appends, until they are committed.", "topic")
LOG_FAILURES = _count("springtide_log_failures", "Calls to Kafka that failed, including those retried.")
LOG_WAITING = _read("springtide_log_waiting_seconds", "Age of the longest-running call to Kafka.")
LOG_STALLS = _count("springtide_log_stalls", "Kafka readers that stalled and were replaced.")
HOOK_FAILURES = _count("springtide_hook_failures", "Notices that a hook did not receive, its retries included.", "hook")
SHARD_FAILURES = _count(
    "springtide_shard_failures", "Bundles and turns of a shard on Flink that raised an error.", "kind", "shard"
)

# The process.
DISK_FREE = _read("springtide_disk_free_bytes", "Free space on the disk of the state folder.")
DISK_SIZE = _read("springtide_disk_size_bytes", "Size of the disk of the state folder.")
READING_FAILURES = _count("springtide_reading_failures", "Scrapes in which a reader failed.", "reader")
