"""What the front counts between two messages to the process that exports metrics."""

import json
from collections import Counter


class Counts:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._predictions: Counter[str] = Counter()
        self._closed: Counter[str] = Counter()
        self._seconds: list[float] = []

    def request(self, status: int) -> None:
        """Count a request of any kind."""
        self._requests[str(status)] += 1

    def prediction(self, status: int) -> None:
        """Count a prediction request."""
        self._predictions[str(status)] += 1

    def computed(self, seconds: float) -> None:
        """Observe the time to compute a prediction."""
        self._seconds.append(seconds)

    def closed(self, reason: str) -> None:
        """Count a connection closed because of its client."""
        self._closed[reason] += 1

    def take(self, connections: int) -> bytes:
        """The counts as JSON, with the number of open connections; they begin again at 0."""
        taken = {
            "connections": connections,
            "requests": self._requests,
            "predictions": self._predictions,
            "closed": self._closed,
            "seconds": self._seconds,
        }
        self._requests, self._predictions, self._closed, self._seconds = Counter(), Counter(), Counter(), []
        return json.dumps(taken).encode()
