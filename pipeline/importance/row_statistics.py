"""The statistics that every packed row of a table ends with, read from the bytes of a version."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import UInt8s

STATISTICS_DTYPE = np.dtype(
    [("count", "<u4"), ("last_seen_s", "<u4"), ("importance", "<f4"), ("unsettled", "<f4"), ("curvature", "<f4")]
)
"""Occurrences learned from; log time of the last, s since 1970; importance decayed to then; 1 − convergence; squared
gradient of a weight, summed over samples and decayed as importance is."""


def statistics_of(rows: UInt8s) -> npt.NDArray[Any]:
    """[n] STATISTICS_DTYPE of packed rows [n, row bytes] uint8.

    >>> statistics_of(np.zeros((2, 20), np.uint8))["importance"].tolist()
    [0.0, 0.0]
    """
    packed = np.ascontiguousarray(rows[:, rows.shape[1] - STATISTICS_DTYPE.itemsize :])
    return packed.view(STATISTICS_DTYPE).reshape(len(rows))
