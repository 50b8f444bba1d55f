"""Where commits meet training: between two batches the training thread answers what a commit asks of its tables.

Tables belong to the training thread alone. A commit that is made beside it asks; the answer comes at the next boundary,
or at once while training waits for the commit.
"""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")
_Asked = tuple[Callable[[], Any], "Future[Any] | None"]


class Boundary:
    """Carries questions from a commit's threads to the training thread.

    >>> Boundary().ask(lambda: 6 * 7)
    42
    """

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._beside = False

    @contextmanager
    def beside_training(self) -> Iterator[None]:
        """While this lasts the training thread serves; outside, whoever asks is the training thread itself."""
        self._beside = True
        try:
            yield
        finally:
            self._beside = False

    def ask(self, question: Callable[[], _Answer]) -> _Answer:
        """The answer of `question`, called between two batches. Keep it short: training stands still meanwhile."""
        if not self._beside:
            return question()
        answer: Future[_Answer] = Future()
        self._asked.put((question, answer))
        return answer.result()

    def tell(self, action: Callable[[], None]) -> None:
        """Have `action` done at the next boundary, not waiting for it; what it raises, the training thread raises."""
        if self._beside:
            self._asked.put((action, None))
        else:
            action()

    def serve(self) -> None:
        """At a boundary: answer what has been asked by now."""
        for _ in range(self._asked.qsize()):
            self._serve(self._asked.get())

    def serve_until(self, work: "Future[Any]") -> None:
        """Answer until `work` has ended."""
        work.add_done_callback(lambda _: self._asked.put(None))
        while not work.done() or self._asked.qsize():
            self._serve(self._asked.get())

    def _serve(self, asked: _Asked | None) -> None:
        if asked is None:
            return
        question, answer = asked
        if answer is None:
            question()
            return
        try:
            answer.set_result(question())
        except BaseException as failure:
            answer.set_exception(failure)
