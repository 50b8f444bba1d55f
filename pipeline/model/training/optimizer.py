"""The optimizer of the dense weights: Adagrad by our own rule, any other kind by Keras; clipping and schedule for all.

`begin` runs before a step, `apply` inside its TensorFlow function. What a restart needs is in `arrays`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.configuration.model.optimizers import (
    DenseAdagrad,
    DenseAdam,
    DenseAdamW,
    DenseFtrl,
    DenseLion,
    DenseOptimizer,
    DenseRmsprop,
    DenseSgd,
)
from pipeline.configuration.model.training import Model
from pipeline.model.runtime import keras, tf
from pipeline.model.training.schedule import constant, share_of

_SAMPLES = "optimizer/samples"
_SQUARES = ("_velocity", "_accumulator")
"""Ends of the paths under which the optimizers of Keras hold squared gradients, one for each variable."""


class Rule(Protocol):
    """How gradients move weights."""

    state: Mapping[str, Any]
    """Variables by the name under which versions hold them."""
    rate: Any
    """The learning rate: a variable; it is in no version."""

    squares: Sequence[str | None]
    """By variable, the name in `state` of its sum or mean of squared gradients; None if there is none."""
    initial_square: float
    """What these begin with."""

    def update(self, gradients: Sequence[Any]) -> None:
        """Move each weight by its gradient, then apply its constraint."""


class Optimizer:
    """The optimizer of a model's trainable variables, with its state. Not thread-safe."""

    def __init__(self, model: keras.Model, settings: Model) -> None:
        self._config, self._batch_size = settings.optimizer, settings.batch_size
        self._full_rate = settings.dense_learning_rate
        scheduled = not constant(self._config.schedule)
        self._rule = _rule_of(model, self._config, self._full_rate, scheduled)
        self._dtypes = [variable.value.dtype for variable in model.trainable_variables]
        self._samples = 0 if scheduled else None

    @property
    def variables(self) -> list[Any]:
        """All variables that a step may use."""
        return [*self._rule.state.values(), self._rule.rate]

    @property
    def floats(self) -> list[Any]:
        """The variables of the state that must stay finite."""
        return [variable for variable in self._rule.state.values() if variable.dtype.is_floating]

    @property
    def squares(self) -> Sequence[str | None]:
        """By trainable variable, the name in `arrays` of its squared gradients; None if there are none."""
        return self._rule.squares

    @property
    def initial_square(self) -> float:
        """What the squared gradients begin with."""
        return self._rule.initial_square

    @property
    def names(self) -> set[str]:
        """The names in `arrays`, without reading a variable."""
        return {*self._rule.state, *([] if self._samples is None else [_SAMPLES])}

    def begin(self, samples: int) -> None:
        """Prepare the step that learns from the next `samples` samples."""
        if self._samples is not None:
            self._samples += samples
            self._rule.rate.assign(np.float32(self._full_rate * share_of(self._config.schedule, self._samples)))

    def apply(self, summed: Sequence[Any]) -> None:
        """Move the weights by the gradient of the objective over the batch size; `summed` is that of its sum."""
        # The gradient of an embedding layer is sparse.
        tensors = [tf.cast(tf.convert_to_tensor(each), dtype) for each, dtype in zip(summed, self._dtypes, strict=True)]
        self._rule.update(self._clipped([tensor / self._batch_size for tensor in tensors]))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The state by name; the bytes depend only on what was learned."""
        samples = {} if self._samples is None else {_SAMPLES: np.array(self._samples, np.int64)}
        return {name: variable.numpy() for name, variable in self._rule.state.items()} | samples

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from `arrays`; others are ignored."""
        for name, variable in self._rule.state.items():
            variable.assign(arrays[name])
        if self._samples is not None:
            self._samples = int(arrays[_SAMPLES])

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        limit, norm = self._config.clip_value, self._config.clip_norm
        if limit is not None:
            return [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]
        if norm is not None and gradients:
            total = tf.sqrt(tf.add_n([tf.reduce_sum(tf.cast(g, tf.float32) ** 2) for g in gradients]))
            share = norm / tf.maximum(total, norm)
            return [gradient * tf.cast(share, gradient.dtype) for gradient in gradients]
        return gradients


def _rule_of(model: keras.Model, config: DenseOptimizer, rate: float, scheduled: bool) -> Rule:
    if isinstance(config, DenseAdagrad):
        return _Adagrad(model, config.initial_accumulator, rate, scheduled)
    return _KerasRule(model, _keras_optimizer(config, rate))


class _Adagrad:
    """w −= rate · g / √(a + Σg²) (Duchi et al. 2011), without an ε."""

    def __init__(self, model: keras.Model, initial: float, rate: float, scheduled: bool) -> None:
        # Plain tf.Variables: the wrapper of Keras has no assign_sub under a tape.
        self._weights = [variable.value for variable in model.trainable_variables]
        self._constraints = [variable.constraint for variable in model.trainable_variables]
        self.rate = tf.Variable(rate, dtype=tf.float32)
        self._rate = self.rate if scheduled else rate
        accumulators = {f"accumulator/{i}": _filled(variable, initial) for i, variable in enumerate(self._weights)}
        self.state: Mapping[str, Any] = accumulators
        self.squares: Sequence[str | None] = list(accumulators)
        self.initial_square = initial

    def update(self, gradients: Sequence[Any]) -> None:
        for i, (variable, accumulator) in enumerate(zip(self._weights, self.state.values(), strict=True)):
            mean = gradients[i]
            accumulator.assign_add(mean * mean)
            rate = tf.cast(self._rate, mean.dtype) if self._rate is self.rate else self._rate
            moved = rate * mean * tf.math.rsqrt(accumulator)
            variable.assign_sub(tf.cast(moved, variable.dtype))
            if self._constraints[i] is not None:
                variable.assign(tf.cast(self._constraints[i](tf.convert_to_tensor(variable)), variable.dtype))


class _KerasRule:
    """An optimizer of Keras, which applies constraints itself."""

    def __init__(self, model: keras.Model, optimizer: keras.Optimizer) -> None:
        self._optimizer, self._weights = optimizer, model.trainable_variables
        optimizer.build(self._weights)
        self.rate = optimizer.learning_rate.value
        variables = [variable.value for variable in optimizer.variables]
        # Names of Keras depend on what was built before in the process.
        held = [variable for variable in variables if variable is not self.rate]
        self.state: Mapping[str, Any] = {f"optimizer/{i}": variable for i, variable in enumerate(held)}
        paths = {id(variable.value): variable.path for variable in optimizer.variables}
        found = [name for name, variable in self.state.items() if paths[id(variable)].endswith(_SQUARES)]
        complete = len(found) == len(self._weights)
        self.squares: Sequence[str | None] = found if complete else [None] * len(self._weights)
        self.initial_square = float(getattr(optimizer, "initial_accumulator_value", 0.0))

    def update(self, gradients: Sequence[Any]) -> None:
        self._optimizer.apply(list(gradients), self._weights)


def _keras_optimizer(config: DenseOptimizer, rate: float) -> keras.Optimizer:
    kinds = keras.optimizers
    match config:
        case DenseSgd():
            return kinds.SGD(rate, config.momentum, config.nesterov, weight_decay=config.weight_decay)
        case DenseAdamW():
            return kinds.AdamW(rate, config.weight_decay, config.beta1, config.beta2, config.epsilon)
        case DenseLion():
            return kinds.Lion(rate, config.beta1, config.beta2, weight_decay=config.weight_decay)
        case DenseRmsprop():
            return kinds.RMSprop(rate, config.rho, config.momentum, config.epsilon, config.centered)
        case DenseFtrl():
            l1, l2 = config.l1, config.l2
            return kinds.Ftrl(
                rate, initial_accumulator_value=config.initial_accumulator, l1_regularization_strength=l1,
                l2_regularization_strength=l2, beta=config.beta,
            )  # fmt: skip
        case DenseAdam():
            kind = {"adam": kinds.Adam, "adamax": kinds.Adamax, "nadam": kinds.Nadam}[config.kind]
            return kind(rate, config.beta1, config.beta2, config.epsilon)
    raise AssertionError(config)


def _filled(variable: Any, value: float) -> Any:
    return tf.Variable(tf.fill(variable.shape, tf.cast(value, variable.dtype)))
