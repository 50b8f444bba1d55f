"""Writes to Kafka: one idempotent producer, with a transactional id where it holds a fence.

All values of an append become visible together or not at all. Without a transaction they go as one record batch, which
Kafka writes whole: the producer lingers for ever and is flushed by hand, so it never cuts early. What does not fit one
batch, and every append under a fence, is a transaction; its marker uses up an offset.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kafka import KafkaProducer
from kafka.errors import (
    InvalidProducerEpochError,
    InvalidProducerIdMappingError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerFencedError,
    RecordListTooLargeError,
)

from pipeline.errors import FencedError, LogError, SpringtideError
from pipeline.logs.kafka.calls import KafkaSettings, patiently, translated
from pipeline.logs.kafka.client import start_client
from pipeline.logs.log import Headers
from pipeline.process.clock import Clock

_RETRY_MS = 2
"""A transaction waits this long between its steps: 16 ms in all, 116 at the client's default of 100."""
_LINGER_MS = 86_400_000
"""Long enough for a process that was stopped in the middle of an append."""
_REQUEST_OVERHEAD = 1 << 20
_GRACE_S = 5.0
Found = TypeVar("Found")


class KafkaWriter:
    """Appends to any partition, or with a `transactional_id` as the one writer that last called `take_over`.

    Thread-safe: appends of one writer go one after another. Do not carry it over a fork.
    """

    def __init__(self, settings: KafkaSettings, clock: Clock, transactional_id: str | None = None) -> None:
        self._settings, self._clock = settings, clock
        self._transactional = transactional_id is not None
        self._lock = threading.Lock()
        self._lost: SpringtideError | None = None
        self._retired = False
        self._producer: Any = patiently(settings, clock, "open a writer", lambda: self._open(transactional_id))

    @property
    def lost(self) -> bool:
        """Whether this writer can append no more."""
        return self._lost is not None

    def take_over(self) -> None:
        """End what earlier writers of this transactional id left open and forbid them more. Raises LogError."""
        try:
            self._within("take a fence", self._producer.init_transactions)
        except KafkaError as failure:
            raise translated(self._settings, "take a fence", failure, 0.0) from failure

    @property
    def epoch(self) -> int:
        """Of the last take-over: greater than that of every earlier one, whichever process took it.

        The cluster raises a producer's epoch, and gives a producer id that is greater once its 16 bits are used up.
        """
        told = self._producer._transaction_manager.producer_id_and_epoch
        return int(told.producer_id) << 16 | int(told.epoch)

    def append(self, topic: str, partition: int, values: Sequence[bytes], headers: Sequence[Headers]) -> int:
        """Append at least one value; returns the offset of the first. Raises FencedError and LogError.

        After an error of the broker this writer is lost; where the outcome is unknown, read the partition to learn it.
        """
        self._check_sizes(topic, values, headers)
        with self._lock:
            if self._lost is not None:
                raise self._lost
            try:
                return self._send(topic, partition, values, headers)
            except KafkaError as failure:
                if self._heard(failure, ProducerFencedError, InvalidProducerEpochError):
                    self._lost = _taken_over(topic, partition)
                    raise self._lost from failure
                if self._heard(failure, InvalidProducerIdMappingError):
                    self._lost = _forgotten(topic, partition)
                    self.close()
                    raise self._lost from failure
                raise self._given_up(topic, partition, failure) from failure

    def retire(self, topic: str, partition: int) -> None:
        """End the writer of a fence that was taken again: every further append raises FencedError."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            self._lost = self._lost or _taken_over(topic, partition)
        self.close()

    def close(self) -> None:
        """Give back the client; what it could not send by now is never sent."""
        with contextlib.suppress(KafkaError):
            self._producer.close(timeout=0 if self.lost else _GRACE_S)
            return
        # `close` flushes first, and raises before it has stopped anything where a broker is away.
        self._producer._sender.force_close()

    def _open(self, transactional_id: str | None) -> Any:
        settings, patience_ms = self._settings, round(self._settings.patience_s * 1000)
        return start_client(
            settings,
            KafkaProducer,
            transactional_id=transactional_id,
            enable_idempotence=True,
            acks="all",
            compression_type=None if settings.compression == "none" else settings.compression,
            linger_ms=_LINGER_MS,
            batch_size=settings.max_record_bytes,
            max_request_size=settings.max_record_bytes + _REQUEST_OVERHEAD,
            retry_backoff_ms=_RETRY_MS,
            request_timeout_ms=patience_ms,
            delivery_timeout_ms=_LINGER_MS + patience_ms + 1,
            max_block_ms=patience_ms,
            transaction_timeout_ms=round(settings.transaction_timeout_s * 1000),
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def _send(self, topic: str, partition: int, values: Sequence[bytes], headers: Sequence[Headers]) -> int:
        name, producer = self._settings.prefix + topic, self._producer
        if self._transactional:
            producer.begin_transaction()
        pairs = ([(key, text.encode()) for key, text in each.items()] for each in headers)
        sent = [
            producer.send(name, value, headers=each, partition=partition)
            for value, each in zip(values, pairs, strict=True)
        ]
        if self._transactional:
            self._within(f"commit to {topic}/{partition}", producer.commit_transaction)
        else:
            producer.flush(timeout=self._settings.patience_s)
        offsets = [int(future.get(timeout=0).offset) for future in sent]
        return offsets[0]

    def _heard(self, failure: KafkaError, *kinds: type[KafkaError]) -> bool:
        """Whether the broker refused this writer so; the client may have heard it while it did something else."""
        errors = [failure, self._producer._transaction_manager.last_error]
        wrapped = [inner for error in errors for inner in getattr(error, "args", ())]
        return any(isinstance(error, kinds) for error in (*errors, *wrapped))

    def _given_up(self, topic: str, partition: int, failure: KafkaError) -> SpringtideError:
        undone = self._transactional and self._aborted()
        if isinstance(failure, MessageSizeTooLargeError | RecordListTooLargeError):
            error: SpringtideError = LogError(
                f"topic {topic} refuses a record: {failure}. hint: raise max.message.bytes of the topic "
                f"(logs.max_record_bytes is {self._settings.max_record_bytes})"
            )
        else:
            outcome = "nothing was written" if undone else "whether it was written is unknown"
            what = f"append to {topic}/{partition} ({outcome})"
            error = translated(self._settings, what, failure, self._settings.patience_s)
        # The client's sequence numbers have a hole now: the broker would refuse what follows.
        self._lost = error
        self.close()  # or it would go on trying behind the back of a caller who was told
        return error

    def _aborted(self) -> bool:
        """Whether what was begun is certainly undone."""
        try:
            self._within("abort", self._producer.abort_transaction)
        except KafkaError:
            return False
        return True

    def _within(self, what: str, call: Callable[[], object]) -> None:
        """Run a call of the producer that knows no timeout. Raises KafkaTimeoutError."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=run, name=f"springtide {what}", daemon=True)
        thread.start()
        thread.join(self._settings.patience_s)
        if thread.is_alive():
            raise KafkaTimeoutError(f"{what} did not end within {self._settings.patience_s:g} s")
        if failures:
            raise failures[0]

    def _check_sizes(self, topic: str, values: Sequence[bytes], headers: Sequence[Headers]) -> None:
        at = max(range(len(values)), key=lambda i: len(values[i]))
        if not self._settings.fits_one_batch([values[at]], [headers[at]]):
            raise LogError(
                f"a record of {len(values[at])} bytes is too large for topic {topic}: "
                f"logs.max_record_bytes allows {self._settings.max_record_bytes}. "
                "hint: raise it, and max.message.bytes of the topic with it"
            )


def _taken_over(topic: str, partition: int) -> FencedError:
    return FencedError(
        f"partition {topic}/{partition} was taken over: the broker refuses this writer's epoch. "
        "hint: another process writes it now, stop this one"
    )


def _forgotten(topic: str, partition: int) -> LogError:
    return LogError(
        f"the cluster has forgotten the writer of {topic}/{partition}, which wrote nothing for as long as "
        "transactional.id.expiration.ms of the brokers says; nothing was written now. "
        "hint: start it again, it then takes the partition anew"
    )
