"""Leaves out the rows for which a computation over a batch fails, so that one of them does not hold the others."""

from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import SpringtideError

T = TypeVar("T")


def without_failing(
    rows: range,
    compute: Callable[[range], T],
    failures: tuple[type[SpringtideError], ...],
    failed: Callable[[int, SpringtideError], None],
) -> list[tuple[range, T]]:
    """What `compute` gives for rows, in runs that leave out each row for which it fails alone: `failed` gets it.

    A row that fails costs 2 log2(rows) further calls.

    >>> def inverse(rows):
    ...     if 2 in rows:
    ...         raise SpringtideError("no inverse")
    ...     return [1 / (row - 2) for row in rows]
    >>> without_failing(range(4), inverse, (SpringtideError,), lambda row, failure: print(row, failure))
    2 no inverse
    [(range(0, 2), [-0.5, -1.0]), (range(3, 4), [1.0])]
    """
    try:
        return [(rows, compute(rows))]
    except failures as failure:
        if len(rows) <= 1:
            for row in rows:
                failed(row, failure)
            return []
    middle = len(rows) // 2
    halves = (rows[:middle], rows[middle:])
    return [run for half in halves for run in without_failing(half, compute, failures, failed)]
