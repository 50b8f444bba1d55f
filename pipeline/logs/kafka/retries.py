"""Retries of calls to a Kafka cluster, the time that calls wait, and the conversion of the client's errors.

A broker restart, a new partition leader or a node that is not ready are transient: the call is retried until
`retry_timeout_s` has passed. Then a LogError names the cluster, the operation and the time spent on it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

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
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.process.clock import Clock
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading

_BACKOFF_S = 0.05
Result = TypeVar("Result")
_pending: dict[object, tuple[Clock, float]] = {}


@contextmanager
def pending_call(clock: Clock) -> Iterator[None]:
    """Count the time inside the block as waiting for the cluster (see `readings`)."""
    call = object()
    _pending[call] = clock, clock.monotonic_s()
    try:
        yield
    finally:
        del _pending[call]


def readings() -> Iterator[Reading]:
    """How long the longest pending call of this process has waited, over all logs."""
    waits_s = [clock.monotonic_s() - began_s for clock, began_s in list(_pending.values())]
    yield metrics.LOG_WAITING.reading(max(waits_s, default=0.0))


def with_retries(settings: KafkaSettings, clock: Clock, operation: str, call: Callable[[], Result]) -> Result:
    """The result of `call`, retried after transient errors.

    Raises LogError, ConfigError, DamagedError, and Kafka's OffsetOutOfRangeError, which the caller handles.
    """
    with pending_call(clock):
        began_s = clock.monotonic_s()
        while True:
            try:
                return call()
            except OffsetOutOfRangeError:
                raise
            except KafkaError as failure:
                metrics.LOG_FAILURES.inc()
                tried_s = clock.monotonic_s() - began_s
                if not failure.retriable or tried_s >= settings.retry_timeout_s:
                    raise as_log_error(settings, operation, failure, tried_s) from failure
            clock.wait(_BACKOFF_S)


def as_log_error(settings: KafkaSettings, operation: str, failure: Exception, tried_s: float) -> SpringtideError:
    """The error of this package for an error of the client; `operation` is a verb with its object."""
    cluster = f"kafka at {settings.bootstrap}"
    if isinstance(failure, CorruptRecordError):
        return DamagedError(f"{cluster}, {operation}: {failure}. hint: restore the broker's replica")
    # Some of the client's errors begin with their own name.
    name = type(failure).__name__
    reason = f"{name}: {str(failure).removeprefix(f'{name}: ')}".rstrip(": .")
    if isinstance(failure, KafkaConfigurationError | AssertionError | ValueError):
        return ConfigError(f"logs: invalid settings of the kafka client: {reason}. hint: see logs.security")
    if isinstance(failure, SaslAuthenticationFailedError | UnsupportedSaslMechanismError):
        return ConfigError(f"logs: {cluster}: authentication failed: {reason}. hint: see logs.security")
    if isinstance(failure, BrokerResponseError) and not failure.retriable:
        return LogError(f"{cluster} rejected the request to {operation}: {reason}. hint: {_hint(settings, failure)}")
    return LogError(
        f"{cluster}: could not {operation}, retried for {tried_s:.1f} s: {reason}. "
        "hint: check that the broker runs and that logs.bootstrap is right"
    )


def _hint(settings: KafkaSettings, failure: BrokerResponseError) -> str:
    if isinstance(failure, InvalidReplicationFactorError):
        factor = settings.replication_factor or "the broker's default"
        return f"logs.replication_factor is {factor}, the number of brokers is its upper bound"
    if isinstance(failure, AuthorizationError):
        return "grant this permission to the user of logs.security (runbooks/kubernetes.md)"
    return "check the settings of the topic and the broker"
