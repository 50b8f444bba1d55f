"""TensorBoard summaries: scalars and histograms of one trainer shard, by the number of samples learned from.

A folder that cannot be written stops the summaries, not the training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from pipeline.model.runtime import tf

Values = npt.NDArray[np.floating[Any]]

_talk = structlog.get_logger(__name__)


class Summaries:
    """An events file. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = tf.summary.create_file_writer(str(folder))

    def write(self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Values]) -> None:
        """Add one point to each curve, and to each histogram one distribution; on disk when this returns."""
        if self._writer is None:
            return
        try:
            with self._writer.as_default(step=step):
                for name, value in scalars.items():
                    tf.summary.scalar(name, value)
                for name, values in histograms.items():
                    tf.summary.histogram(name, values)
            self._writer.flush()
        except (tf.errors.OpError, OSError) as failure:
            self._writer = None
            _talk.error("no more summaries", folder=str(self._folder), problem=str(failure))

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
