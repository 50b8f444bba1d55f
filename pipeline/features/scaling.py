"""Normalised and clipped dense inputs, by the same code in training and serving.

Order: `log1p` (in `dense`), then `normalise`, then `clip`. A normalised input is (x − mean) / deviation over all
samples learned before, in log order: a step sees the statistics as they were before its batch, and so does a replica
that serves the version before it. Statistics are merged batch by batch in float64 (Chan, Golub and LeVeque 1983,
equation 2.1); batches depend on the log only, so they are exact across restarts. They travel with the dense weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float32s
from pipeline.configuration.model.fields import DenseConfig

_CONSTANT = 1e-7
"""A deviation below this share of the mean is rounding: the input has had one value."""
_COUNT, _MEAN, _SQUARES = range(3)


class DenseScaling:
    """The statistics of normalised inputs. Not thread-safe; `apply` may run in several threads."""

    def __init__(self, dense: Sequence[DenseConfig]) -> None:
        starts = np.cumsum([0, *(number.width for number in dense)])
        self._columns = np.array(
            [c for d, start in zip(dense, starts, strict=False) if d.normalise for c in range(start, start + d.width)],
            np.int64,
        )
        self._widths = {_name(number): number.width for number in dense if number.normalise}
        low, high = (np.repeat([_bound(d, i) for d in dense], [d.width for d in dense]) for i in (0, 1))
        self._bounds = (low.astype(np.float32), high.astype(np.float32)) if any(d.clip for d in dense) else None
        self._set(np.zeros((3, len(self._columns))))

    def apply(self, numbers: Float32s) -> None:
        """Normalise and clip [n, columns] in place; before the first sample a normalised input is 0."""
        if len(self._columns):
            x = numbers[:, self._columns].astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite stays so, and halts training
                numbers[:, self._columns] = (x - self._mean) * self._inverse
        if self._bounds is not None:
            np.clip(numbers, *self._bounds, out=numbers)

    def learn(self, numbers: Float32s) -> None:
        """Count n samples: [n, columns] as they are before `apply`."""
        if not (len(self._columns) and len(numbers)):
            return
        x, n = numbers[:, self._columns].astype(np.float64), len(numbers)
        mean = x.mean(axis=0)
        count, before, squares = self._statistics
        moved, total = mean - before, count + n
        merged = squares + ((x - mean) ** 2).sum(axis=0) + moved**2 * (count * n / total)
        self._set(np.stack([total, before + moved * (n / total), merged]))

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """By input, [3, width] count, mean, and sum of squared differences from it."""
        stops = np.cumsum(list(self._widths.values()))
        parts = np.split(self._statistics, stops[:-1], axis=1) if len(stops) else []
        return {name: part.copy() for name, part in zip(self._widths, parts, strict=True)}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from `arrays`; others are ignored."""
        if self._widths:
            self._set(np.concatenate([arrays[name] for name in self._widths], axis=1))

    def _set(self, statistics: npt.NDArray[np.float64]) -> None:
        count, mean, squares = statistics
        deviation = np.sqrt(squares / np.maximum(count, 1))
        varies = deviation > _CONSTANT * np.abs(mean)
        inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        self._statistics, self._mean, self._inverse = statistics, mean, inverse


def _name(number: DenseConfig) -> str:
    """Of the statistics in versions; those of another column or transform have another name."""
    return f"scaling/{number.name}/{number.column}/{number.transform}"


def _bound(number: DenseConfig, side: int) -> float:
    return number.clip[side] if number.clip else (-np.inf, np.inf)[side]
