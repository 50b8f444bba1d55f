"""A small dense network without TensorFlow: weights that walk as Adagrad moves them, and a trainer that serves them."""

from typing import Any

import numpy as np

from pipeline.configuration.project import Project
from pipeline.model.network.weights import pack
from pipeline.model.training.curvature import Curvature
from pipeline.publish.price.byte_price import Price
from pipeline.publish.price.dense_weights import DenseUpdate, PublishedDense, TrainedWeights
from tests.support.synthetic.trainer import SyntheticTrainer

KERNEL, BIAS, LAST, COUNT = "variable/0/kernel", "variable/1/bias", "variable/2/kernel", "variable/3/count"
SCALING = "scaling/price/price/value"
INITIAL = 0.1
ROUNDED = {"loss": 0.0002, "dense": "priced"}
"""`[publish]` of a project whose dense weights are rounded."""
CURVATURE = Curvature({KERNEL: "accumulator/0", BIAS: "accumulator/1", LAST: "accumulator/2"}, INITIAL)


def price_of_rounding(dense: TrainedWeights, rounding: float) -> Price:
    """At a loss of 1, the steps at which rounding makes an error of at most about `rounding` of the weights, both
    weighted by h; bytes are free."""
    count = sum(dense.arrays[name].size for name in dense.curvature.squares)
    return Price(for_steps=Price().dense_scale * rounding**2 / max(count, 1))


def publish_dense(published: PublishedDense, dense: TrainedWeights, rounding: float = 0.02) -> DenseUpdate:
    """What becomes of the dense weights at `price_of_rounding`."""
    return published.update(dense, price_of_rounding(dense, rounding), 1.0)


class DenseWalk:
    """Weights and accumulators of a network of 20 × 12, 12 and 12 × 1 weights, an integer and a statistic."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.weights = {KERNEL: self._normal((20, 12)), BIAS: np.zeros(12, np.float32), LAST: self._normal((12, 1))}
        self.squares = {name: np.full(array.shape, INITIAL, np.float32) for name, array in self.weights.items()}
        self.steps = 0

    def step(self, scale: float = 1.0) -> None:
        """Move every weight once."""
        for name, array in self.weights.items():
            gradient = self.random.normal(0, scale, array.shape).astype(np.float32)
            self.squares[name] += gradient**2
            array -= np.float32(0.05) * gradient / np.sqrt(self.squares[name])
        self.steps += 1

    def packed(self) -> bytes:
        """As `DenseModel.weights_bytes`."""
        arrays: dict[str, Any] = dict(self.weights)
        arrays[COUNT] = np.array(self.steps // 3, np.int64)
        arrays |= {f"accumulator/{i}": squares for i, squares in enumerate(self.squares.values())}
        return pack(arrays | {SCALING: np.array([[self.steps // 4], [0.5], [2.0]])})

    def trained(self) -> TrainedWeights:
        return TrainedWeights(self.packed(), CURVATURE)

    def _normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.random.normal(0, 0.2, shape).astype(np.float32)


class DenseTrainer(SyntheticTrainer):
    """A synthetic trainer whose dense weights walk."""

    def __init__(self, project: Project, seed: int = 0, **more: Any) -> None:
        super().__init__(project, seed, **more)
        self.walk = DenseWalk(seed)

    def next_dense(self) -> TrainedWeights:
        self.walk.step()
        return self.walk.trained()
