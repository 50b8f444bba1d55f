"""Hostile clients of a replica: idle, slow, huge, malformed, and those that do not read. Runs in its own process.

python -m tests.benchmarks.load.attackers PORT SECONDS

The process has the lowest priority: attackers do not sit on the server's processors. How fast they are is thus a part
of the result: connections attempted per second, and statuses received.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

PREDICT = b"POST /v1/models/model:predict HTTP/1.1\r\nHost: x\r\n"
IDLE, SLOW, UNREAD = 1_200, 50, 5
"""Connections that send half a head or nothing; that send a byte at a time; that never read."""
NICE = 19
"""Added to the niceness of the process."""
_PAUSE_S = 0.25


def _post(body: bytes) -> bytes:
    return PREDICT + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def _instances(count: int) -> bytes:
    instance = {"id": 1, "user": 7, "item": 3, "price": 2.5}
    return b'{"instances":[' + b",".join([json.dumps(instance).encode()] * count) + b"]}"


def huge() -> list[bytes]:
    """Bodies beyond the bounds, and as large as the bounds allow."""
    return [
        _post(b'{"instances":[{}],"x":[' + b"[]," * 20_000_000 + b"[]]}"),
        _post(b'{"instances":[' + b"{}," * 5_000_000 + b"{}]}"),
        _post(b'{"instances":[' + b"{}," * 2_600_000 + b"{}]}"),
        _post(b'{"instances":[{"user":[' + b"[]," * 2_600_000 + b"[]]}]}"),
        _post(_instances(50_000)),
        _post(_instances(10_000)),
    ]


MALFORMED = [
    _post(b'{"instances":' + b"[" * 1_000 + b"]" * 1_000 + b"}"),
    _post(b"[" * 100_000),
    _post(b'{"instances":[{"price":NaN}]}'),
    _post(b'{"instances":[{"price":1e39}]}'),
    _post(b'{"instances":[{"user":' + b"9" * 5_000 + b"}]}"),
    _post(b"\xff" * 1_000),
    PREDICT + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    PREDICT + b"Content-Length: -1\r\n\r\n",
    PREDICT + b"Content-Length: 100\r\n\r\n{",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    b"GET /" + b"a" * 100_000,
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 55\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    b"DELETE /v1/models/model HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
]


class Attack:
    """Attacks of one kind each, repeated until they are cancelled; `seen` counts statuses."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.seen: Counter[str] = Counter()
        self.connections = 0
        """Attempted."""

    async def idle(self, number: int) -> None:
        """Hold a connection until the server closes it."""
        reader, writer = await self._open()
        if number % 2:
            writer.write(PREDICT + b"Content-Le")
        await reader.read()
        writer.close()
        await asyncio.sleep(1.0)

    async def slow(self, number: int) -> None:
        """Send a byte at a time, of the head or of the body."""
        reader, writer = await self._open()
        writer.write(PREDICT + b"Content-Length: 90000\r\n\r\n" if number % 2 else b"")
        while not writer.is_closing() and not reader.at_eof():
            writer.write(b"G")
            await writer.drain()
            await asyncio.sleep(_PAUSE_S)

    async def unread(self, number: int) -> None:
        """Request large responses and read none."""
        _, writer = await self._open(1)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        await asyncio.sleep(30)
        writer.close()

    async def send(self, sent: bytes) -> None:
        """Send a request and count the status of its response."""
        reader, writer = await self._open()
        with suppress(OSError):
            writer.write(sent)
            await writer.drain()
        writer.write_eof()
        self.seen[(await reader.read())[9:12].decode() or "none"] += 1
        writer.close()
        await asyncio.sleep(_PAUSE_S)

    async def _open(self, limit: int = 1 << 16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connections += 1
        return await asyncio.open_connection("127.0.0.1", self._port, limit=limit)


async def _repeat(once: Callable[[], Awaitable[None]]) -> None:
    while True:
        with suppress(OSError, RuntimeError):
            await once()
        await asyncio.sleep(_PAUSE_S)


async def attack(port: int, seconds: float) -> Attack:
    """Attack for `seconds`; returns what was attempted and received."""
    attack, bodies = Attack(port), huge()
    kinds: list[Callable[[], Awaitable[None]]] = []
    for count, kind in ((IDLE, attack.idle), (SLOW, attack.slow), (UNREAD, attack.unread)):
        kinds += [lambda kind=kind, n=n: kind(n) for n in range(count)]  # type: ignore[misc]
    kinds += [lambda body=body: attack.send(body) for body in bodies]  # type: ignore[misc]
    kinds += [lambda body=body: attack.send(body) for body in MALFORMED]  # type: ignore[misc]
    tasks = [asyncio.create_task(_repeat(kind)) for kind in kinds]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return attack


def main(port: int, seconds: float) -> None:
    """Attack, and print attempts and statuses as JSON."""
    os.nice(NICE)
    made = asyncio.run(attack(port, seconds))
    print(json.dumps({"connections": made.connections, "seconds": seconds, "statuses": made.seen}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
