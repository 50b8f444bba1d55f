"""TensorBoard summaries: scalars and histograms of one trainer shard, by the number of samples learned from.

A folder that cannot be written stops the summaries, not training. NumPy counts the buckets: the histogram of TensorFlow
takes several milliseconds each, which training would miss.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb

from pipeline.model.runtime import tf

Values = npt.NDArray[np.floating[Any]]

logger = structlog.get_logger(__name__)


class Summaries:
    """An events file. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._failed = False

    def write(self, step: int, scalars: Mapping[str, float], histograms: Mapping[str, Values]) -> None:
        """Add a point to each curve and a distribution to each histogram; on disk when this returns."""
        if self._failed:
            return
        parts = [scalar_pb(name, value) for name, value in scalars.items()]
        parts += [histogram_pb(name, values) for name, values in histograms.items()]
        with self._stopping_on_failure():
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._folder))
            with self._writer.as_default(step=step):
                tf.summary.experimental.write_raw_pb(b"".join(part.SerializeToString() for part in parts))
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        with self._stopping_on_failure():
            if self._writer is not None and not self._failed:
                self._writer.close()

    @contextmanager
    def _stopping_on_failure(self) -> Iterator[None]:
        """Log the first failure; nothing is written after it."""
        try:
            yield
        except (tf.errors.OpError, OSError) as failure:
            self._failed = True
            logger.error("summaries stopped", folder=str(self._folder), problem=str(failure))
