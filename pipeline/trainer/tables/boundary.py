"""A call queue from commit threads to the training thread, which runs the calls between two batches.

Only the training thread touches the tables. A commit runs in other threads and passes each access to a table as a call.
The training thread runs the calls at its next batch boundary, or at once while it waits for the commit.
"""

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_Call = tuple[Callable[[], Any], "Future[Any] | None"]


class BoundaryCalls:
    """The side of a commit: submits calls. Thread-safe. The training thread itself would deadlock here."""

    def __init__(self, calls: "queue.SimpleQueue[_Call | None]") -> None:
        self._calls = calls

    def run(self, call: Callable[[], _Result]) -> _Result:
        """The result of `call`, run at the next boundary. Training is stalled while it runs: it should be short."""
        result: Future[_Result] = Future()
        self._calls.put((call, result))
        return result.result()

    def run_later(self, call: Callable[[], None]) -> None:
        """Have `call` run at the next boundary and return at once; the training thread raises what it raises."""
        self._calls.put((call, None))


class Boundary:
    """The side of the training thread: runs the calls submitted through `calls`."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self.calls = BoundaryCalls(self._calls)

    def serve(self) -> None:
        """At a boundary: run the calls made so far."""
        for _ in range(self._calls.qsize()):
            self._run(self._calls.get())

    def serve_until(self, work: "Future[Any]") -> None:
        """Run calls until `work` is done."""
        work.add_done_callback(lambda _: self._calls.put(None))
        while not work.done() or self._calls.qsize():
            self._run(self._calls.get())

    def _run(self, queued: _Call | None) -> None:
        if queued is None:
            return
        call, result = queued
        if result is None:
            call()
            return
        try:
            result.set_result(call())
        except BaseException as failure:
            result.set_exception(failure)
