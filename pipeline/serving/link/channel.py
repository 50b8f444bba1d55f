"""Messages between the front of a replica and the process that predicts, over a pair of connected sockets.

A message: kind, 1 byte; number of the request, 8; length of the content, 4; content. Integers are little-endian. The
content of a response: status, 2; length of its head, 4; head, JSON [content type, [[header, value], …]]; body. Both
ends are the same release, so the format has no version.
"""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from pipeline.serving.link.response import Response

_HEAD = struct.Struct("<BQI")
_RESPONSE_HEAD = struct.Struct("<HI")
_RECEIVED_AT_ONCE = 64 << 10


class Kind(IntEnum):
    """What a message is."""

    STARTED = 0
    """The front serves connections."""
    PREDICT = 1
    """A prediction request; content: its body."""
    PREDICT_LARGE = 2
    """One that gives way to the others."""
    READ = 3
    """A GET; content: the path."""
    RESPONSE = 4
    COUNTS = 5
    """What the front has counted since the last such message, JSON."""
    PROBLEM = 6
    """A line of the front's log, JSON."""
    STOP = 7
    """The front ends after the requests in progress."""
    RECALL = 8
    """A recall request; content: its body."""


class Message(NamedTuple):
    """One message; `number` relates a response to its request."""

    kind: Kind
    number: int = 0
    content: bytes = b""


def encode_message(message: Message) -> bytes:
    """The bytes of a message.

    >>> Decoder().feed(encode_message(Message(Kind.READ, 7, b"/metrics")))
    [Message(kind=<Kind.READ: 3>, number=7, content=b'/metrics')]
    """
    return _HEAD.pack(message.kind, message.number, len(message.content)) + message.content


def encode_response(response: Response) -> bytes:
    """The content of a response."""
    head = json.dumps([response.content_type, response.headers]).encode()
    return _RESPONSE_HEAD.pack(response.status, len(head)) + head + response.body


def decode_response(content: bytes) -> Response:
    """The response of which `content` is the content."""
    status, length = _RESPONSE_HEAD.unpack_from(content)
    end = _RESPONSE_HEAD.size + length
    content_type, headers = json.loads(content[_RESPONSE_HEAD.size : end])
    return Response(status, content_type, content[end:], tuple((name, value) for name, value in headers))


class Decoder:
    """Cuts received bytes into messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.missing = _HEAD.size
        """Bytes without which there is no further message."""

    def feed(self, part: bytes) -> list[Message]:
        """The messages that `part` completes."""
        self._parts.append(part)
        self.missing -= len(part)
        if self.missing > 0:
            return []
        received, start, found = b"".join(self._parts), 0, []
        while (missing := start + _HEAD.size - len(received)) <= 0:
            kind, number, length = _HEAD.unpack_from(received, start)
            begin, end = start + _HEAD.size, start + _HEAD.size + length
            if (missing := end - len(received)) > 0:
                break
            found.append(Message(Kind(kind), number, received[begin:end]))
            start = end
        self._parts, self.missing = [received[start:]], missing
        return found


class Channel:
    """The end of a channel that blocks. Many threads may send; one receives."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected, self._sending = connected, threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message; it is dropped if the other end has closed."""
        try:
            with self._sending:
                self._connected.sendall(encode_message(message))
        except OSError:
            return

    def messages(self) -> Iterator[Message]:
        """The messages of the other end until it closes."""
        decoder = Decoder()
        while part := self._received(decoder.missing):
            yield from decoder.feed(part)

    def close(self) -> None:
        """End both directions; `messages` then ends."""
        try:
            self._connected.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def _received(self, missing: int) -> bytes:
        # A long message is received in one call: each call waits for the interpreter afterwards.
        flags = socket.MSG_WAITALL if missing > _RECEIVED_AT_ONCE else 0
        try:
            return self._connected.recv(max(missing, _RECEIVED_AT_ONCE), flags)
        except OSError:
            return b""
