"""Fast copies of structured rows: NumPy copies them field by field, 20 times slower than as opaque bytes.

This concerns indexing, assignment and concatenation; `take` already copies bytes.
"""

from collections.abc import Sequence

import numpy as np


def copy_rows(into: np.ndarray, rows: np.ndarray) -> None:
    """Copy `rows` [n] into `into` [n]; both C-contiguous, of one structured dtype."""
    into.view(_opaque(into.dtype))[:] = rows.view(_opaque(rows.dtype))


def concatenate_rows(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate one or more C-contiguous arrays of one structured dtype.

    >>> pair = np.dtype([("a", "i8"), ("b", "u1")], align=True)
    >>> concatenate_rows([np.array([(1, 2)], pair), np.array([(3, 4)], pair)]).tolist()
    [(1, 2), (3, 4)]
    """
    dtype = parts[0].dtype
    assert all(p.dtype == dtype for p in parts), "one dtype"
    return np.concatenate([p.view(_opaque(dtype)) for p in parts]).view(dtype)


def _opaque(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    return np.dtype((np.void, dtype.itemsize))
