"""kafka-python's clients as we start them: held to their time, and ended whole where they do not start.

What is mended here, all in kafka-python 3.0.12, which `pyproject.toml` pins:
- the sender drops a transaction's request for good where `await_ready` raises, and a commit waits for it for ever;
- what came together with the end of a connection is dropped, a refusal with its reason above all;
- a TLS handshake has no end: a broker that accepts a connection and says nothing holds every call;
- a consumer or admin client whose start fails leaves a thread and its files behind.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net import manager
from kafka.net.compat import KafkaNetClient
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from pipeline.logs.kafka.calls import KafkaSettings

_HANDSHAKE_S = 10.0


class PatientClient(KafkaNetClient):  # type: ignore[misc]
    """Says no where a broker is away; what was to be sent is then tried again."""

    def await_ready(self, node_id: object, timeout_ms: float = 30_000) -> bool:
        try:
            return bool(super().await_ready(node_id, timeout_ms))
        except KafkaConnectionError:
            return False


class _HeardOut:
    """Hands on what was received before the connection ended; its end is found again by the next look."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        received, failure = super()._sock_recv()  # type: ignore[misc]
        return received, None if received else failure


class HeardOutTcp(_HeardOut, KafkaTCPTransport):  # type: ignore[misc]
    """Plain connections."""


class TimedTls(_HeardOut, KafkaSSLTransport):  # type: ignore[misc]
    """Hangs up on a broker that does not finish its handshake in time."""

    async def handshake(self) -> None:
        timer = self._net.call_later(_HANDSHAKE_S, self._hang_up)
        try:
            await super().handshake()
        finally:
            self._net.cancel(timer)

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


manager.KafkaTCPTransport, manager.KafkaSSLTransport = HeardOutTcp, TimedTls


def start_client(settings: KafkaSettings, kind: Callable[..., Any], **values: Any) -> Any:
    """A producer, consumer or admin client. Raises the client's errors, and then leaves nothing behind."""
    begun: list[PatientClient] = []

    def begin(**configs: Any) -> PatientClient:
        begun.append(PatientClient(**configs))
        return begun[-1]

    try:
        return kind(**settings.client(), **values, kafka_client=begin)
    except BaseException:
        for client in begun:
            client.close()
        raise
