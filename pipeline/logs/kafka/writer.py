"""Writes to Kafka: one idempotent producer, with a transactional id if it holds a fence.

The values of an append become visible together. Without a transaction they are sent as one record batch, which Kafka
writes atomically: the producer's linger time never passes and it is flushed explicitly, so a batch is never cut early.
An append that does not fit one batch, and every append under a fence, is a transaction; its commit marker uses an
offset.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

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
from pipeline.logs.interface.log import NewRecord
from pipeline.logs.kafka.client import start_client
from pipeline.logs.kafka.retries import as_log_error, with_retries
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.process.clock import Clock

_RETRY_BACKOFF_MS = 2
"""Between the steps of a transaction, which takes 16 ms in all; 116 ms at the client's default of 100."""
_LINGER_MS = 86_400_000
"""Longer than a process that is suspended in the middle of an append stays suspended."""
_REQUEST_OVERHEAD = 1 << 20
_CLOSE_TIMEOUT_S = 5.0


class KafkaWriter:
    """Appends to any partition; with a `transactional_id`, as the only writer of this id.

    A writer with an id fences the earlier writers of the same id and aborts their open transactions when it is
    constructed. Thread-safe: concurrent appends are serialised. Cannot be used after a fork.
    """

    def __init__(self, settings: KafkaSettings, clock: Clock, transactional_id: str | None = None) -> None:
        """Raises LogError."""
        self._settings = settings
        self._transactional = transactional_id is not None
        self._lock = threading.Lock()
        self._failure: SpringtideError | None = None
        self._retired = False
        self._producer: Any = with_retries(settings, clock, "open a writer", lambda: self._open(transactional_id))
        if self._transactional:
            try:
                self._run_with_timeout("acquire a fence", self._producer.init_transactions)
            except BaseException as failure:
                self.close()
                if isinstance(failure, KafkaError):
                    raise as_log_error(settings, "acquire a fence", failure, 0.0) from failure
                raise

    @property
    def failed(self) -> bool:
        """Whether every further append raises."""
        return self._failure is not None

    @property
    def epoch(self) -> int:
        """Greater than that of every earlier writer of the same transactional id, in whichever process.

        The cluster raises the producer epoch, and assigns a greater producer id once the 16 bits of the epoch are used.
        """
        producer = self._producer._transaction_manager.producer_id_and_epoch
        return int(producer.producer_id) << 16 | int(producer.epoch)

    def append(self, topic: str, partition: int, records: Sequence[NewRecord]) -> int:
        """Append at least one record; returns the offset of the first. Raises FencedError and LogError.

        An error of the broker makes this writer fail for good; if the outcome is unknown, it can be read from the
        partition.
        """
        self._check_sizes(topic, records)
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                return self._send(topic, partition, records)
            except KafkaError as failure:
                self._failure = self._as_failure(topic, partition, failure)
                if not isinstance(self._failure, FencedError):
                    self.close()  # otherwise the producer continues to retry although the caller got an error
                raise self._failure from failure

    def retire(self, topic: str, partition: int) -> None:
        """Close the writer of a fence that was acquired again: every further append raises FencedError."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            self._failure = self._failure or _fenced(topic, partition)
        self.close()

    def close(self) -> None:
        """Close the client; records that are not sent yet are dropped."""
        with contextlib.suppress(KafkaError):
            self._producer.close(timeout=0 if self.failed else _CLOSE_TIMEOUT_S)
            return
        # `close` flushes first, and raises before it has stopped anything if a broker is unavailable.
        self._producer._sender.force_close()

    def _open(self, transactional_id: str | None) -> Any:
        settings, timeout_ms = self._settings, round(self._settings.retry_timeout_s * 1000)
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
            retry_backoff_ms=_RETRY_BACKOFF_MS,
            request_timeout_ms=timeout_ms,
            delivery_timeout_ms=_LINGER_MS + timeout_ms + 1,
            max_block_ms=timeout_ms,
            transaction_timeout_ms=round(settings.transaction_timeout_s * 1000),
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def _send(self, topic: str, partition: int, records: Sequence[NewRecord]) -> int:
        name, producer = self._settings.prefix + topic, self._producer
        if self._transactional:
            producer.begin_transaction()
        sent = [
            producer.send(
                name,
                None if each.key is not None and not each.value else each.value,
                key=each.key,
                headers=[(header, text.encode()) for header, text in each.headers.items()],
                partition=partition,
            )
            for each in records
        ]
        if self._transactional:
            self._run_with_timeout(f"commit to {topic}/{partition}", producer.commit_transaction)
        else:
            producer.flush(timeout=self._settings.retry_timeout_s)
        offsets = [int(future.get(timeout=0).offset) for future in sent]
        return offsets[0]

    def _as_failure(self, topic: str, partition: int, failure: KafkaError) -> SpringtideError:
        """The error that this and every further append raises; aborts the transaction."""
        if self._rejected_with(failure, ProducerFencedError, InvalidProducerEpochError):
            return _fenced(topic, partition)
        if self._rejected_with(failure, InvalidProducerIdMappingError):
            return _expired(topic, partition)
        aborted = self._transactional and self._abort()
        # Even after an abort the client's sequence numbers have a gap: the broker would reject further batches.
        if isinstance(failure, MessageSizeTooLargeError | RecordListTooLargeError):
            return LogError(
                f"topic {topic} rejects a record: {failure}. hint: raise max.message.bytes of the topic "
                f"(logs.max_record_bytes is {self._settings.max_record_bytes})"
            )
        outcome = "nothing was written" if aborted else "whether it was written is unknown"
        operation = f"append to {topic}/{partition} ({outcome})"
        return as_log_error(self._settings, operation, failure, self._settings.retry_timeout_s)

    def _rejected_with(self, failure: KafkaError, *kinds: type[KafkaError]) -> bool:
        """Whether the broker rejected this producer with such an error, which may have ended another request."""
        errors = [failure, self._producer._transaction_manager.last_error]
        wrapped = [inner for error in errors for inner in getattr(error, "args", ())]
        return any(isinstance(error, kinds) for error in (*errors, *wrapped))

    def _abort(self) -> bool:
        """Abort the transaction; whether it is certainly aborted."""
        try:
            self._run_with_timeout("abort", self._producer.abort_transaction)
        except KafkaError:
            return False
        return True

    def _run_with_timeout(self, operation: str, call: Callable[[], object]) -> None:
        """Run a call of the producer that has no timeout of its own. Raises KafkaTimeoutError."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=run, name=f"springtide {operation}", daemon=True)
        thread.start()
        thread.join(self._settings.retry_timeout_s)
        if thread.is_alive():
            raise KafkaTimeoutError(f"{operation} did not end within {self._settings.retry_timeout_s:g} s")
        if failures:
            raise failures[0]

    def _check_sizes(self, topic: str, records: Sequence[NewRecord]) -> None:
        largest = max(records, key=lambda record: len(record.value))
        if not self._settings.fits_one_batch([largest]):
            raise LogError(
                f"a record of {len(largest.value)} bytes is too large for topic {topic}: "
                f"logs.max_record_bytes is {self._settings.max_record_bytes}. "
                "hint: raise it and the topic's max.message.bytes"
            )


def _fenced(topic: str, partition: int) -> FencedError:
    return FencedError(
        f"writer of {topic}/{partition} is fenced: the broker rejects its epoch. "
        "hint: another process writes this partition now, stop this one"
    )


def _expired(topic: str, partition: int) -> LogError:
    return LogError(
        f"producer id of the writer of {topic}/{partition} has expired: it wrote nothing for the brokers' "
        "transactional.id.expiration.ms; nothing was written now. hint: restart the process, it acquires a new one"
    )
