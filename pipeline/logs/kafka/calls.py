"""How the log reaches a Kafka cluster: the client's settings, patience while brokers are away, errors in our words.

A broker that restarts, a leader that moved, a node that is not ready: all pass, so every call is tried again until
patience ends; then a LogError names the cluster, what was asked and how long it was tried. Nothing else is swallowed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kafka.errors import (
    AuthorizationError,
    BrokerResponseError,
    CorruptRecordError,
    InvalidReplicationFactorError,
    KafkaConfigurationError,
    KafkaError,
    OffsetOutOfRangeError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

from pipeline.errors import ConfigError, DamagedError, LogError, SpringtideError
from pipeline.logs.log import Headers
from pipeline.process.clock import Clock
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading

_PAUSE_S = 0.05
_RECONNECT_MOST_MS = 500
_RECORD_OVERHEAD = 64
_BATCH_OVERHEAD = 1 << 10
Found = TypeVar("Found")


@dataclass(frozen=True)
class KafkaSettings:
    """How to speak to a cluster.

    Attributes:
        bootstrap: `host:port`, several with commas between.
        prefix: goes before every topic's name on the cluster.
        security: settings of the client that begin with `security_`, `ssl_` or `sasl_`, handed on as they are.
        compression: of what is written; whatever is read is understood.
        replication_factor: of topics that are made; None leaves it to the cluster.
        max_record_bytes: the largest record and the largest batch of a topic that is made.
        patience_s: how long a call is tried again while brokers are away.
        transaction_timeout_s: the cluster ends a dead writer's transaction after this long; till then readers wait.
        stall_s: a reader that gets nothing for so long, though there is something, is built anew.
    """

    bootstrap: str
    prefix: str = ""
    security: Mapping[str, Any] = field(default_factory=dict)
    compression: str = "lz4"
    replication_factor: int | None = None
    max_record_bytes: int = 32 << 20
    patience_s: float = 60.0
    transaction_timeout_s: float = 30.0
    stall_s: float = 5.0

    def fits_one_batch(self, values: Sequence[bytes], headers: Sequence[Headers]) -> bool:
        """Whether these values surely go as one record batch; its bytes before compression count."""
        beside = sum(len(key.encode()) + len(text.encode()) + 10 for each in headers for key, text in each.items())
        overhead = _BATCH_OVERHEAD + _RECORD_OVERHEAD * len(values)
        return overhead + sum(map(len, values)) + beside <= self.max_record_bytes

    def client(self) -> dict[str, Any]:
        """What every client is made with."""
        return {
            "bootstrap_servers": [server.strip() for server in self.bootstrap.split(",")],
            "client_id": "springtide",
            "reconnect_backoff_max_ms": _RECONNECT_MOST_MS,
            "bootstrap_timeout_ms": round(self.patience_s * 1000),
            "receive_message_max_bytes": 2**31 - 1,
            **self.security,
        }


_under_way: dict[object, tuple[Clock, float]] = {}


@contextmanager
def waiting(clock: Clock) -> Iterator[None]:
    """What is inside waits for the cluster."""
    call = object()
    _under_way[call] = clock, clock.monotonic_s()
    try:
        yield
    finally:
        del _under_way[call]


def readings() -> Iterator[Reading]:
    """How long the oldest call of this process has waited, for whatever log."""
    waits_s = [clock.monotonic_s() - began_s for clock, began_s in list(_under_way.values())]
    yield metrics.LOG_WAITING.reading(max(waits_s, default=0.0))


def patiently(settings: KafkaSettings, clock: Clock, what: str, call: Callable[[], Found]) -> Found:
    """What `call` returns, tried again over passing failures. Raises LogError, ConfigError and DamagedError."""
    with waiting(clock):
        return _try_again(settings, clock, what, call)


def _try_again(settings: KafkaSettings, clock: Clock, what: str, call: Callable[[], Found]) -> Found:
    began_s = clock.monotonic_s()
    while True:
        try:
            return call()
        except OffsetOutOfRangeError:
            raise  # the caller knows which offsets there are
        except KafkaError as failure:
            metrics.LOG_FAILURES.inc()
            tried_s = clock.monotonic_s() - began_s
            if not failure.retriable or tried_s >= settings.patience_s:
                raise translated(settings, what, failure, tried_s) from failure
        clock.wait(_PAUSE_S)


def translated(settings: KafkaSettings, what: str, failure: Exception, tried_s: float) -> SpringtideError:
    """The client's error in our words."""
    if isinstance(failure, CorruptRecordError):
        return DamagedError(f"kafka at {settings.bootstrap}, {what}: {failure}. hint: restore the broker's replica")
    # Some of the client's errors begin with their own name.
    why = f"{type(failure).__name__}: {str(failure).removeprefix(f'{type(failure).__name__}: ')}".rstrip(": .")
    if isinstance(failure, KafkaConfigurationError | AssertionError | ValueError):
        return ConfigError(f"logs: the kafka client refuses its settings: {why}. hint: see logs.security")
    if isinstance(failure, SaslAuthenticationFailedError | UnsupportedSaslMechanismError):
        return ConfigError(f"logs: kafka at {settings.bootstrap} lets nobody in: {why}. hint: see logs.security")
    if isinstance(failure, BrokerResponseError) and not failure.retriable:
        return LogError(f"kafka at {settings.bootstrap} refuses to {what}: {why}. hint: {_way_out(settings, failure)}")
    return LogError(
        f"kafka at {settings.bootstrap} could not {what}, tried for {tried_s:.1f} s: {why}. "
        "hint: is the broker up, and is logs.bootstrap right"
    )


def _way_out(settings: KafkaSettings, failure: BrokerResponseError) -> str:
    if isinstance(failure, InvalidReplicationFactorError):
        wanted = settings.replication_factor
        return f"logs.replication_factor is {wanted or 'the broker’s own'}, and at most the number of brokers"
    if isinstance(failure, AuthorizationError):
        return "give the user of logs.security that right (runbooks/kubernetes.md)"
    return "see the settings of topic and broker"
