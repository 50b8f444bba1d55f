"""Clients that read a partition, lent to one thread at a time: none of them may be used by two."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from pipeline.logs.log import ReadLimits

_IDLE = 2
"""Kept open per partition, each where it has come to."""
Found_co = TypeVar("Found_co", covariant=True)
Found = TypeVar("Found")


class PartitionClient(Protocol[Found_co]):
    """What reads one partition."""

    @property
    def at(self) -> int:
        """The offset it reads on from without asking again."""

    @property
    def rebuilt(self) -> int:
        """How often it stalled and was built anew."""

    def read(self, start: int, limits: ReadLimits, end_offset: Callable[[], int]) -> Found_co:
        """What there is from `start` on."""

    def close(self) -> None:
        """Give the connection back."""


class LentClients(Generic[Found]):
    """Thread-safe."""

    def __init__(self, make: Callable[[str, int], PartitionClient[Found]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[PartitionClient[Found]]] = {}
        self._closed = False
        self.rebuilt = 0
        """How often a client stalled and was built anew."""

    @contextmanager
    def lend(self, topic: str, partition: int, start: int) -> Iterator[PartitionClient[Found]]:
        """A client for this thread alone, if possible the one that has come to `start`; one that failed is closed."""
        client = self._take((topic, partition), start) or self._make(topic, partition)
        before = client.rebuilt
        try:
            yield client
        except BaseException:
            client.close()
            raise
        if not self._keep((topic, partition), client, client.rebuilt - before):
            client.close()

    def forget(self, topic: str) -> None:
        """Close the clients of a topic."""
        with self._lock:
            gone = [client for key in list(self._idle) if key[0] == topic for client in self._idle.pop(key)]
        for client in gone:
            client.close()

    def close(self) -> None:
        """Close all; what is lent is closed when it comes back."""
        with self._lock:
            self._closed = True
            gone = [client for idle in self._idle.values() for client in idle]
            self._idle.clear()
        for client in gone:
            client.close()

    def _take(self, place: tuple[str, int], start: int) -> PartitionClient[Found] | None:
        with self._lock:
            idle = self._idle.get(place, [])
            found = next((client for client in idle if client.at == start), idle[-1] if idle else None)
            if found is not None:
                idle.remove(found)
            return found

    def _keep(self, place: tuple[str, int], client: PartitionClient[Found], rebuilt: int) -> bool:
        with self._lock:
            self.rebuilt += rebuilt
            idle = self._idle.setdefault(place, [])
            if self._closed or len(idle) >= _IDLE:
                return False
            idle.append(client)
            return True
