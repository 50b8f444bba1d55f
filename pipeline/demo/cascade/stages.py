"""The three stages as a client sees them: recall and the fine ranker of one replica, the coarse ranker of another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from pipeline.errors import InputError
from pipeline.process.clock import Clock

Columns = dict[str, Any]
_TIMEOUT_S, _READY_WITHIN_S, _POLL_S = 30.0, 60.0, 0.05


@dataclass(frozen=True)
class Sizes:
    """How many items each stage passes on."""

    recalled: int = 200
    kept: int = 50
    shown: int = 10


@dataclass(frozen=True)
class Ranked:
    """The items that each stage passed on for one user, best first."""

    recalled: list[str]
    kept: list[str]
    shown: list[str]
    scores: list[float]
    """Of `shown`: probabilities of a click by the fine ranker."""


class Stages:
    """Not thread-safe."""

    def __init__(self, whole: str, coarse: str, items: Sequence[Columns]) -> None:
        """URLs of the model at a replica of the whole model and of part `coarse`; the columns of all items."""
        self._whole, self._coarse = whole, coarse
        self._items = {str(item["item"]): item for item in items}
        self._client = httpx.Client(timeout=_TIMEOUT_S)

    def wait_until_ready(self, user: Columns, clock: Clock) -> None:
        """Wait until recall has embedded the items. Raises InputError after a minute."""
        until_s = clock.monotonic_s() + _READY_WITHIN_S
        while True:
            try:
                self.recall(user, 1)
                return
            except InputError:
                if clock.monotonic_s() > until_s:
                    raise
            clock.wait(_POLL_S)

    def rank(self, user: Columns, sizes: Sizes) -> Ranked:
        """Recall, then coarse, then fine. Raises InputError if a replica refuses."""
        recalled = self.recall(user, sizes.recalled)["items"]
        kept = _best(recalled, self.coarse(user, recalled), sizes.kept)
        fine = self.fine(user, kept)
        shown = _best(kept, fine, sizes.shown)
        return Ranked(recalled, kept, shown, sorted(fine, reverse=True)[: sizes.shown])

    def recall(self, user: Columns, k: int) -> dict[str, Any]:
        """`items` and `scores` of the k best items, and the `version` of the towers."""
        answer = self._post(f"{self._whole}:recall", {"instances": [user], "k": k})
        return {**answer["recalled"][0], "version": answer["version"]}

    def coarse(self, user: Columns, items: Sequence[str]) -> list[float]:
        """The coarse ranker's probabilities of items."""
        return [row[0] for row in self._predicted(self._coarse, user, items)]

    def fine(self, user: Columns, items: Sequence[str]) -> list[float]:
        """The fine ranker's probabilities of items at the first position."""
        return [row["click"] for row in self._predicted(self._whole, user | {"position": 0}, items)]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _predicted(self, model: str, user: Columns, items: Sequence[str]) -> list[Any]:
        instances = [user | self._items[item] for item in items]
        found: list[Any] = self._post(f"{model}:predict", {"instances": instances})["predictions"]
        return found

    def _post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._client.post(url, json=body)
        if response.status_code != httpx.codes.OK:
            raise InputError(f"{url} answers {response.status_code}: {response.text}. hint: is the version published?")
        answer: dict[str, Any] = response.json()
        return answer


def _best(items: Sequence[str], scores: Sequence[float], count: int) -> list[str]:
    """The items with the highest scores, best first.

    >>> _best(["a", "b", "c"], [0.1, 0.3, 0.2], 2)
    ['b', 'c']
    """
    order = sorted(range(len(items)), key=lambda place: -scores[place])
    return [items[place] for place in order[:count]]
