"""The settings of a connection to a Kafka cluster, and of the topics and batches that are written there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.logs.interface.log import NewRecord

_MAX_RECONNECT_BACKOFF_MS = 500
_RECORD_OVERHEAD = 64
_BATCH_OVERHEAD = 1 << 10


@dataclass(frozen=True)
class KafkaSettings:
    """The part of the configuration that concerns Kafka.

    Attributes:
        bootstrap: `host:port`, several separated by commas.
        prefix: prepended to the name of every topic on the cluster.
        security: client settings that begin with `security_`, `ssl_` or `sasl_`, passed to the client unchanged.
        compression: of written batches; batches of every compression can be read.
        replication_factor: of created topics; None means the cluster's default.
        max_record_bytes: largest record and largest batch of a created topic.
        retry_timeout_s: how long a failed call is retried while brokers are unavailable.
        transaction_timeout_s: the cluster aborts the transaction of a dead writer after this time; until then readers
            do not see later records.
        stall_s: a consumer that returns nothing for this long, although records follow, is replaced.
    """

    bootstrap: str
    prefix: str = ""
    security: Mapping[str, Any] = field(default_factory=dict)
    compression: str = "lz4"
    replication_factor: int | None = None
    max_record_bytes: int = 32 << 20
    retry_timeout_s: float = 60.0
    transaction_timeout_s: float = 30.0
    stall_s: float = 5.0

    def fits_one_batch(self, records: Sequence[NewRecord]) -> bool:
        """Whether these records certainly fit one batch; the limit applies to its size before compression."""
        header_bytes = sum(
            len(key.encode()) + len(text.encode()) + 10 for each in records for key, text in each.headers.items()
        )
        own_bytes = sum(len(each.value) + len(each.key or b"") for each in records)
        overhead = _BATCH_OVERHEAD + _RECORD_OVERHEAD * len(records)
        return overhead + own_bytes + header_bytes <= self.max_record_bytes

    def client(self) -> dict[str, Any]:
        """The settings that all clients share."""
        return {
            "bootstrap_servers": [server.strip() for server in self.bootstrap.split(",")],
            "client_id": "springtide",
            "reconnect_backoff_max_ms": _MAX_RECONNECT_BACKOFF_MS,
            "bootstrap_timeout_ms": round(self.retry_timeout_s * 1000),
            "receive_message_max_bytes": 2**31 - 1,
            **self.security,
        }
