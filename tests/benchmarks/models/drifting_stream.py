"""A stream of clicks that drifts, and a factorisation machine that learns it with the tables of training.

Six fields with Zipf-like frequencies have latent vectors, whose products decide the true click probability. The vectors
of one field walk at random, and which of its keys are frequent moves on, as for items of a shop.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.configuration.model.fields import Adagrad
from pipeline.features.pooling import Pooling
from pipeline.trainer.batch.prefetch import FieldBatch, TableBatch
from pipeline.trainer.tables.model_input import InputField, ModelInput
from pipeline.trainer.tables.table import Table

SIZES = (300_000, 60_000, 20_000, 5_000, 1_000, 100)
MOVING = 1
"""The field that drifts."""
DIM, BATCH, LATENT = 16, 2_000, 6
HALF_LIFE_S = 3_600.0
_MOVED, _WALK = 0.0025, 0.05

Lookup = Callable[[int, np.ndarray], np.ndarray]
"""(number of the table, keys [n]) → rows [n, DIM]"""


@dataclass(frozen=True)
class Samples:
    """n samples: keys [n, fields] uint64, clicked [n] float32, true click probability [n]."""

    keys: np.ndarray
    clicked: np.ndarray
    probability: np.ndarray

    def part(self, start: int, stop: int) -> "Samples":
        return Samples(self.keys[start:stop], self.clicked[start:stop], self.probability[start:stop])


class DriftingStream:
    """Samples of one interval after the other. `seed` decides everything."""

    def __init__(self, seed: int, scale: int = 1) -> None:
        """`scale`: by how much the sizes of fields are divided."""
        self._random = np.random.default_rng(seed)
        self._sizes = [max(size // scale, 10) for size in SIZES]
        self._latent = [self._random.normal(0, 0.45, (size, LATENT)) for size in self._sizes]
        self._popularity = [self._random.normal(0, 0.4, size) for size in self._sizes]
        self._keys = [self._random.integers(0, 2**64, size, np.uint64) for size in self._sizes]
        self._interval = 0.0

    @property
    def keys(self) -> list[np.ndarray]:
        """[size] of each field."""
        return self._keys

    def next(self, count: int, share: float = 1.0) -> Samples:
        """The samples of the next interval; afterwards the truth has drifted by the `share` of a usual interval."""
        ranks = [np.expm1(self._random.random(count) * np.log(size + 1)).astype(np.int64) for size in self._sizes]
        size = self._sizes[MOVING]
        ranks[MOVING] += int(self._interval * _MOVED * size)
        places = [np.minimum(each, limit - 1) for each, limit in zip(ranks, self._sizes, strict=True)]
        places[MOVING] = ranks[MOVING] % size
        vectors = [latent[at] for latent, at in zip(self._latent, places, strict=True)]
        total = np.sum(vectors, axis=0)
        products = 0.5 * ((total**2).sum(axis=1) - np.sum([(each**2).sum(axis=1) for each in vectors], axis=0))
        popularity = np.sum([each[at] for each, at in zip(self._popularity, places, strict=True)], axis=0)
        probability = 1 / (1 + np.exp(1.6 - 0.35 * popularity - 0.35 * products))
        clicked = (self._random.random(count) < probability).astype(np.float32)
        self._latent[MOVING] += self._random.normal(0, _WALK * share**0.5, self._latent[MOVING].shape)
        self._interval += share
        keys = np.stack([each[at] for each, at in zip(self._keys, places, strict=True)], axis=1)
        return Samples(keys, clicked, probability)


class FactorisationMachine:
    """A bias and the products of all pairs of rows, learned by row-wise Adagrad."""

    def __init__(self, learning_rate: float) -> None:
        optimizer = Adagrad(learning_rate=learning_rate)
        self.tables = [Table(DIM, optimizer, seed, 0.01, HALF_LIFE_S) for seed in range(len(SIZES))]
        fields = [InputField(number, Pooling("sum")) for number in range(len(SIZES))]
        self._input = ModelInput(self.tables, fields, 0, 1)
        self.bias = -1.0
        self.loss = 0.0
        """Summed over samples, decayed as the curvature of rows is."""

    def learn(self, samples: Samples, at_s: int) -> None:
        """Learn the samples of one interval, which ends at log time `at_s`."""
        for start in range(0, len(samples.clicked), BATCH):
            self._step(samples.part(start, start + BATCH), at_s)

    def decay(self, elapsed_s: float) -> None:
        """Let log time pass."""
        self.loss *= 0.5 ** (elapsed_s / HALF_LIFE_S)

    def logits(self, keys: np.ndarray, lookup: Lookup | None = None, bias: float | None = None) -> np.ndarray:
        """[n] by own rows, or by those of `lookup`."""
        find = lookup or (lambda number, column: self.tables[number].lookup(column))
        vectors = np.stack([find(number, np.ascontiguousarray(column)) for number, column in enumerate(keys.T)])
        return _products(vectors, vectors.sum(axis=0)) + (self.bias if bias is None else bias)

    def _step(self, samples: Samples, at_s: int) -> None:
        n = len(samples.clicked)
        self._input.find(*_batches(samples.keys))
        self._input.admit_missing(range(len(self.tables)), at_s)
        rows = np.zeros((n, DIM * len(self.tables)), np.float32)
        self._input.gather(rows)
        vectors = rows.reshape(n, len(self.tables), DIM).transpose(1, 0, 2)
        total = vectors.sum(axis=0)
        logits = _products(vectors, total) + self.bias
        residual = 1 / (1 + np.exp(-logits)) - samples.clicked
        self.loss += float((np.logaddexp(0, logits) - samples.clicked * logits).sum())
        self.bias -= 0.02 * float(residual.mean())
        gradient = residual[:, None, None] * (total - vectors).transpose(1, 0, 2)
        self.learn_rows(samples.keys, np.ascontiguousarray(gradient.reshape(n, -1), np.float32), at_s)

    def learn_rows(self, keys: np.ndarray, gradient: np.ndarray, at_s: int) -> None:
        """Update the rows of a batch by the gradient [n, fields × DIM] of its rows; `keys` [n, fields]."""
        self._input.learn(gradient, at_s)


def _products(vectors: np.ndarray, total: np.ndarray) -> np.ndarray:
    """[n] the sum of the products of all pairs of vectors [fields, n, DIM]."""
    squares: np.ndarray = np.einsum("nd,nd->n", total, total) - np.einsum("fnd,fnd->n", vectors, vectors)
    return 0.5 * squares


def _batches(keys: np.ndarray) -> tuple[list[TableBatch], list[FieldBatch]]:
    offsets = np.arange(len(keys) + 1, dtype=np.int64)
    tables, fields = [], []
    for column in keys.T:
        distinct, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        tables.append(TableBatch(distinct, counts.astype(np.uint32)))
        fields.append(FieldBatch(inverse.astype(np.int32), offsets))
    return tables, fields
