"""Importance of inputs, tracked live while the trainer learns: what shuffling a field would cost, from its gradient.

Shuffling the values of a field among the samples replaces its columns x by those of another sample, x̃. With the
sample's gradient g of the loss by these columns, and s = ⟨g, x − x̄⟩, x̄ the mean of x, the loss rises by about

    E[⟨g, x̃ − x⟩] + ½ E[⟨g, x̃ − x⟩²] ≈ −E[s] + E[s²]

- First term: the first-order Taylor criterion (Molchanov et al., "Importance Estimation for Neural Network Pruning",
  CVPR 2019, eq. 7) against the mean input in place of zero. Gradients are those of samples before they are learned
  from, so it is below zero for a field whose rows are overfitted.
- Second term: the curvature of a negative log likelihood is the mean of the squared gradient (Fisher information, as in
  Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018, eq. 5). x and x̃ are independent
  and alike: half the mean square of their difference along g is the mean square of s.

The unit is that of the loss per unit of sample weight: nats of log loss if every label is logistic with weight 1. A
squared or huber loss is no log likelihood in its own unit; its inputs are still in the right order. The mask of a
sequence is an input without a gradient: what padding costs is not in it.

Sums halve with `train.half_life_s` of the log's time, like the importance of rows. One of `EVERY` samples is scored,
chosen by its place in the log: the sums are a function of the samples log.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.errors import DamagedError
from pipeline.importance.fields.estimate import Estimate
from pipeline.importance.fields.inputs import InputColumns

EVERY = 16
"""One of so many samples is scored: more cost more than 1 % of a step."""
MEAN_SAMPLES = 16_384
"""x̄ is the mean of about so many scored samples: rows move, and the mean of long ago is that of other rows."""
FORMAT = 1
_RISE, _SQUARE = range(2)


class LiveImportance:
    """The decayed sums of one shard. Not thread-safe."""

    def __init__(self, columns: InputColumns, half_life_s: float) -> None:
        self._columns, self._half_life_s = columns, half_life_s
        self._shared = {table: list(read) for table, read in columns.shared.items()}
        self._keys = [f"{n}/{w}" for n, w in zip(columns.names, columns.widths, strict=True)]
        self._keys += [
            f"table {table}: {' '.join(columns.names[i] for i in read)}" for table, read in self._shared.items()
        ]
        self._sums = np.zeros((2, len(self._keys)))
        """Of the rise of each sample and of its square, for inputs and then for tables that several fields read."""
        self._weights = np.zeros(len(self._keys))
        self._at_s, self._mean_samples = 0, 0
        self._mean = np.zeros(sum(columns.widths), np.float32)

    def learned(self, inputs: Float32s, gradient: Float32s, weight: Float32s, before: int, at_s: int) -> None:
        """Count a batch of n samples.

        Args:
            inputs: [≥ n, columns] as the network saw them.
            gradient: [n, columns] of the summed loss by the inputs.
            weight: [n] of the samples.
            before: number of samples of the log before the batch.
            at_s: log time after the batch, seconds since 1970; it never decreases.
        """
        first = -before % EVERY
        x, g = inputs[first : len(weight) : EVERY], gradient[first::EVERY]
        w = weight[first::EVERY].astype(np.float64)
        if not len(w):
            return
        self._move_mean(x)
        scores = self._columns.dot(g, x - self._mean).astype(np.float64)
        if self._shared:
            scores = np.concatenate([scores, *(scores[:, f].sum(1, keepdims=True) for f in self._shared.values())], 1)
        # A sample of weight w stands for w samples, and its gradient is w times that of one.
        inverse = np.divide(1.0, w, out=np.zeros_like(w), where=w > 0)
        decay = np.exp2(-max(at_s - self._at_s, 0) / self._half_life_s)
        rises = scores * scores * inverse[:, None] - scores
        self._sums[_RISE] = self._sums[_RISE] * decay + rises.sum(axis=0)
        self._sums[_SQUARE] = self._sums[_SQUARE] * decay**2 + (rises * rises).sum(axis=0)
        self._weights = self._weights * decay + w.sum()
        self._at_s = max(at_s, self._at_s)

    def of_inputs(self) -> dict[str, Estimate]:
        """By input, its importance; without inputs of which no sample was counted."""
        found = zip(self._columns.names, self._estimates(), strict=False)
        return {name: estimate for name, estimate in found if estimate is not None}

    def of_tables(self) -> dict[str, Estimate]:
        """By table, the importance of its fields shuffled together; without tables of which no sample was counted."""
        estimates = self._estimates()
        shared = dict(zip(self._shared, estimates[len(self._columns.names) :], strict=True))
        found = {t: shared[t] if t in shared else estimates[read[0]] for t, read in self._columns.tables.items()}
        return {table: estimate for table, estimate in found.items() if estimate is not None}

    def to_bytes(self) -> bytes:
        """Everything `load` needs."""
        document = {
            "format": FORMAT,
            "at_s": self._at_s,
            "sums": {
                key: [self._sums[_RISE, i], self._sums[_SQUARE, i], self._weights[i]]
                for i, key in enumerate(self._keys)
            },
            "mean_samples": self._mean_samples,
            "mean": {
                self._keys[i]: base64.b64encode(self._mean[part].tobytes()).decode()
                for i, part in enumerate(self._columns.slices)
            },
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def load(self, state: bytes) -> None:
        """Continue from `to_bytes`; an input of another width and a table with other fields start empty.

        Raises DamagedError.
        """
        try:
            document = json.loads(state)
            if document["format"] != FORMAT:
                raise DamagedError(f"importance of fields has format {document['format']}, this release reads {FORMAT}")
            self._load(document)
        except (ValueError, KeyError, TypeError) as failure:
            raise DamagedError(f"importance of fields, {len(state)} bytes, cannot be read: {failure}") from None

    def _load(self, document: Mapping[str, Any]) -> None:
        self._at_s, self._mean_samples = int(document["at_s"]), int(document["mean_samples"])
        for i, key in enumerate(self._keys):
            if key in document["sums"]:
                *self._sums[:, i], self._weights[i] = document["sums"][key]
        for i, part in enumerate(self._columns.slices):
            if self._keys[i] in document["mean"]:
                self._mean[part] = np.frombuffer(base64.b64decode(document["mean"][self._keys[i]]), "<f4")

    def _move_mean(self, x: Float32s) -> None:
        """Move the mean to samples [m, columns]: an average over all of them at first, later a moving one."""
        self._mean_samples = min(self._mean_samples + len(x), max(MEAN_SAMPLES, len(x)))
        self._mean += (x.mean(axis=0) - self._mean) * np.float32(len(x) / self._mean_samples)

    def _estimates(self) -> list[Estimate | None]:
        """Of inputs, then of tables that several fields read; the variance of a sum is about the sum of squares."""
        found = zip(*self._sums.tolist(), self._weights.tolist(), strict=True)
        return [Estimate.around(rise / w, square**0.5 / w) if w > 0 else None for rise, square, w in found]
