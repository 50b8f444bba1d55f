"""Events with a number that no sample may carry: they become dead letters, and all others are joined.

A weight, a label or a dense number out of its configured range would halt the trainer at the batch that holds it.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.arrays.types import Bools, Int64s
from pipeline.configuration.config import Config
from pipeline.configuration.streams.feedbacks import Feedback
from pipeline.features.dense import out_of_range, outside
from pipeline.features.field import column_of
from pipeline.features.transforms import lengths_of
from pipeline.features.weights import wrong_weights


class Ranges:
    """The ranges of a configuration. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._samples, self._dense = config.samples, config.dense
        self._weighted = [(field.columns[0], field.weights) for field in config.fields if field.weights is not None]
        self._types = config.events.impressions.columns

    def impressions(self, columns: pa.RecordBatch, at_ms: Int64s) -> Iterator[tuple[str, Bools]]:
        """(reason, which of n impressions are out of range) for every number that training reads."""
        if (weight := self._samples.weight) is not None:
            yield "weight_out_of_range", outside(columns.column(weight), 0.0, self._samples.max_weight)
        for number in self._dense:
            column = column_of(columns, number.column, self._types, at_ms)
            yield "number_out_of_range", out_of_range(number, column)
        for elements, weights in self._weighted:
            lengths = lengths_of(column_of(columns, elements, self._types, at_ms))
            yield "weights_invalid", wrong_weights(column_of(columns, weights, self._types, at_ms), lengths)

    @staticmethod
    def clicks(feedback: Feedback, columns: pa.RecordBatch) -> Bools:
        """[n] which clicks have a label out of range."""
        wrong = np.zeros(columns.num_rows, np.bool_)
        for label in feedback.labels:
            if label.column is not None:
                wrong |= outside(columns.column(label.column), *label.range)
        return wrong
