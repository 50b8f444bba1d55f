"""Python's cyclic collector, paused while batches are learned.

It would walk over the objects of TensorFlow and Beam again and again: a twentieth of the processor time of a growing
trainer. Objects that are in no cycle are freed at once, as ever. What cycles there are is collected by calls of
`gc.collect` at moments of the caller's choice, which then walk over new objects only.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_paused = 0


@contextmanager
def collector_paused() -> Iterator[None]:
    """Inside, nothing is collected unless `gc.collect` is called, and never what existed before. Thread-safe.

    It concerns the whole process, until the last thread has left.
    """
    _pause(1)
    try:
        yield
    finally:
        _pause(-1)


def _pause(change: int) -> None:
    global _paused
    with _lock:
        before, _paused = _paused, _paused + change
        if not before:
            gc.disable()
            gc.freeze()
        elif not _paused:
            gc.unfreeze()
            gc.enable()
