"""A pool of the clients that read partitions: none of them is thread-safe, so each is used by one thread at a time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from pipeline.logs.interface.log import ReadLimits

_MAX_IDLE = 2
"""Idle clients per partition, each at the offset it read last."""
Result_co = TypeVar("Result_co", covariant=True)
Result = TypeVar("Result")


class PartitionClient(Protocol[Result_co]):
    """A client that reads one partition."""

    @property
    def next_offset(self) -> int:
        """A read from this offset needs no seek."""

    def read(self, start: int, limits: ReadLimits, end_offset: Callable[[], int]) -> Result_co:
        """The records from `start` on."""

    def close(self) -> None:
        """Close the connection."""


class ClientPool(Generic[Result]):
    """Thread-safe."""

    def __init__(self, make: Callable[[str, int], PartitionClient[Result]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[PartitionClient[Result]]] = {}
        self._closed = False

    @contextmanager
    def borrow(self, topic: str, partition: int, start: int) -> Iterator[PartitionClient[Result]]:
        """A client for this thread alone, preferably one at offset `start`; it is closed if the block raises."""
        client = self._pop_idle((topic, partition), start) or self._make(topic, partition)
        try:
            yield client
        except BaseException:
            client.close()
            raise
        if not self._add_idle((topic, partition), client):
            client.close()

    def close_topic(self, topic: str) -> None:
        """Close the idle clients of a topic."""
        with self._lock:
            removed = [client for key in list(self._idle) if key[0] == topic for client in self._idle.pop(key)]
        for client in removed:
            client.close()

    def close(self) -> None:
        """Close all idle clients; a borrowed client is closed when it is returned."""
        with self._lock:
            self._closed = True
            removed = [client for idle in self._idle.values() for client in idle]
            self._idle.clear()
        for client in removed:
            client.close()

    def _pop_idle(self, partition: tuple[str, int], start: int) -> PartitionClient[Result] | None:
        with self._lock:
            idle = self._idle.get(partition, [])
            found = next((client for client in idle if client.next_offset == start), idle[-1] if idle else None)
            if found is not None:
                idle.remove(found)
            return found

    def _add_idle(self, partition: tuple[str, int], client: PartitionClient[Result]) -> bool:
        with self._lock:
            idle = self._idle.setdefault(partition, [])
            if self._closed or len(idle) >= _MAX_IDLE:
                return False
            idle.append(client)
            return True
