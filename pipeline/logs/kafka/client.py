"""Starts kafka-python's clients with its defects worked around, and closes a client whose start fails.

All are defects of kafka-python 3.0.12, which `pyproject.toml` pins:
- if `await_ready` raises, the sender drops the request of a transaction, and the commit waits for it forever;
- bytes received together with the end of a connection are dropped, among them the reason of a rejection;
- a TLS handshake has no timeout, so a broker that accepts a connection and sends nothing blocks every call;
- a consumer or admin client whose start fails leaves a thread and open files behind.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net import manager
from kafka.net.compat import KafkaNetClient
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from pipeline.logs.kafka.settings import KafkaSettings

_HANDSHAKE_TIMEOUT_S = 10.0


class NetClient(KafkaNetClient):  # type: ignore[misc]
    """`await_ready` returns False for an unavailable broker instead of raising, so that the request is retried."""

    def await_ready(self, node_id: object, timeout_ms: float = 30_000) -> bool:
        try:
            return bool(super().await_ready(node_id, timeout_ms))
        except KafkaConnectionError:
            return False


class _DrainBeforeClose:
    """Returns the bytes received before the end of a connection; the next call returns the end itself."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        received, failure = super()._sock_recv()  # type: ignore[misc]
        return received, None if received else failure


class TcpTransport(_DrainBeforeClose, KafkaTCPTransport):  # type: ignore[misc]
    """A plain connection that drains its receive buffer before it closes."""


class TlsTransport(_DrainBeforeClose, KafkaSSLTransport):  # type: ignore[misc]
    """A TLS connection that drains its receive buffer before it closes, and whose handshake has a timeout."""

    async def handshake(self) -> None:
        timer = self._net.call_later(_HANDSHAKE_TIMEOUT_S, self._shut_down)
        try:
            await super().handshake()
        finally:
            self._net.cancel(timer)

    def _shut_down(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


manager.KafkaTCPTransport, manager.KafkaSSLTransport = TcpTransport, TlsTransport


def start_client(settings: KafkaSettings, kind: Callable[..., Any], **values: Any) -> Any:
    """A started producer, consumer or admin client. Raises the client's errors, after closing all it had opened."""
    opened: list[NetClient] = []

    def open_net_client(**configs: Any) -> NetClient:
        opened.append(NetClient(**configs))
        return opened[-1]

    try:
        return kind(**settings.client(), **values, kafka_client=open_net_client)
    except BaseException:
        for client in opened:
            client.close()
        raise
