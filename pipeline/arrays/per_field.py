"""Runs work per field in parallel threads: fields share no state, and native calls release the GIL.

Results do not depend on the number of threads. Use it only for work that takes longer than starting a thread.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")
_MAX_THREADS = 4


def field_thread_pool() -> ThreadPoolExecutor:
    """A pool for work on several fields; leaving the `with` block waits for its threads."""
    return ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="field")


def run_per_field(work: Callable[[str], _Result], names: Iterable[str]) -> dict[str, _Result]:
    """The results of `work(name)` by name, in the order of `names`; raises the first error in that order.

    >>> run_per_field(len, ["user", "item_id"])
    {'user': 4, 'item_id': 7}
    """
    names = list(names)
    with field_thread_pool() as workers:
        return dict(zip(names, workers.map(work, names), strict=True))
