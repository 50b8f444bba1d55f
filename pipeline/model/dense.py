"""The dense network in training and serving: one deterministic step, predictions, weights as bytes.

It reads one `[batch, columns]` tensor (see `layout`) and returns its gradient; it does not depend on rows and tables.
Same weights, same batch, same build, same number of threads: same bytes.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float32s, Int32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.towers import vector_names
from pipeline.errors import InputError
from pipeline.features.scaling import DenseScaling
from pipeline.model.loss.losses import losses_of, scored_losses
from pipeline.model.loss.targets import Targets, trial_targets
from pipeline.model.network.build import build_model, model_digest
from pipeline.model.network.entire_space import joint_logits
from pipeline.model.network.failure import naming_the_model
from pipeline.model.network.inputs import named_inputs
from pipeline.model.network.layout import Layout
from pipeline.model.network.subnetwork import Subnetwork
from pipeline.model.network.weights import Arrays, Shapes, check_shapes, pack, serving_arrays, shapes_of, unpack
from pipeline.model.pair import PairModel
from pipeline.model.part import PartModel
from pipeline.model.predictions import predictions
from pipeline.model.runtime import graph_function, names_of_its_own, prepare_runtime, tf
from pipeline.model.training.curvature import Curvature
from pipeline.model.training.step import Calls, TrainingStep
from pipeline.model.trial import TrialInstances


@dataclass(frozen=True)
class StepResult:
    """The result of one step of n samples, all as of before the update."""

    sample_loss: float
    """Mean per unit of sample weight, summed over labels; below zero if compensations prevail."""
    summed_loss: float
    """Sum over samples and labels."""
    penalty: float
    """Sum of the network's own losses: regularisers and `add_loss`."""
    logits: Float32s
    """[n, labels] the outputs that serving would use, without the correction for down-sampling."""
    gradient: Float32s
    """[n + m, columns] of the *summed* loss by the inputs: a row's step does not depend on the rest of its batch.
    Not writeable."""
    finite: bool
    """Whether every weight and the optimizer's state are finite after the update."""
    losses: Float32s | None = None
    """[n, labels] weighted losses, which add up to the loss of the batch; None if all labels are logistic."""
    ranks: Int32s | None = None
    """[n] how many other items have at least the output of the sample's own; None without two towers."""

    @property
    def loss(self) -> float:
        """What the step minimises, per sample."""
        return self.sample_loss + self.penalty


class DenseModel:
    """The user's network with its weights and their optimizer. Not thread-safe."""

    @names_of_its_own()
    def __init__(self, config: Config, root: Path) -> None:
        """Build `config.model.build` from folder `root`. Raises ModelError."""
        prepare_runtime(config.model.threads)
        self._config, self.layout = config, Layout.of(config)
        self._model, self._function = build_model(config, root)
        self._batch_size = config.model.batch_size
        self._labels, self._scaling = config.outputs, DenseScaling(config.dense)
        self._losses = losses_of(self._labels, root)
        towers = config.towers
        self._drawn, self._item_tower = 0, self._model
        if towers is not None and towers.drawn:
            self._drawn, self._item_tower = towers.drawn, self._subnetwork(towers.item).own_model(self._model)
        calls = Calls(self._call, self._items)
        self._training = TrainingStep(self._model, calls, self.layout.columns, self._losses, config.model)
        # Shapes never change, and reading every variable is slow: a replica loads weights with each delta.
        self._shapes = shapes_of(self._variables() | self._training.optimizer.arrays() | self._scaling.arrays())
        self._served_shapes = shapes_of(serving_arrays(self._variables() | self._scaling.arrays()))
        signature = [_matrix(None, self.layout.columns)]
        self._logits = graph_function(self._call, input_signature=signature)
        self._served = graph_function(self._serve, input_signature=signature)
        self._by_weights = graph_function(self._call_by, reduce_retracing=True)
        self._predict: Any = None

    def step(self, inputs: Float32s, targets: Targets) -> StepResult:
        """Learn from one batch of n ≤ batch_size samples.

        The weights move by the optimizer on the gradient of the objective over batch_size, for every n. If the loss is
        not finite, they are unusable: load them again.

        Args:
            inputs: [rows, columns] float32, n + m ≤ rows ≤ batch_size + m; rows after the (n + m)-th are ignored. m is
                the number of drawn items of two towers, else 0.
            targets: those of the n samples.

        Raises:
            ModelError: the network fails; the weights are then unusable too.
        """
        n, rows = len(targets), len(targets) + self._drawn
        self._check_inputs(inputs)
        if not rows <= len(inputs) <= self._batch_size + self._drawn:
            wanted = f"{rows} to {self._batch_size + self._drawn}"
            raise InputError(f"got {len(inputs)} input rows for {n} samples, wanted {wanted}")
        with self._naming_the_model(inputs[:n]):
            total, penalty, logits, gradient, finite, *more = self._training.run(inputs[:rows], targets)
        weight = float(targets.weight.sum(dtype=np.float64))
        loss = float(total) / weight if weight > 0 else float(total)
        arrays = [array.numpy() for array in more]
        # The tensor's own memory: a copy of megabytes would be made of fresh pages.
        own = np.asarray(memoryview(gradient))
        return StepResult(loss, float(total), float(penalty), logits.numpy(), own, bool(finite), *arrays)

    def scale(self, inputs: Float32s) -> None:
        """Normalise and clip the dense columns of inputs [n, columns] in place, for `step` and `predict`."""
        self._scaling.apply(inputs[:, self.layout.dense_start :])

    def learn_scaling(self, dense: Float32s) -> None:
        """Count the dense numbers [n, dense columns] of a batch that was learned, as they were before `scale`."""
        self._scaling.learn(dense)

    def predict(self, inputs: Float32s) -> Float32s:
        """Predictions of inputs [n, columns] float32: a probability for a logistic label, see `losses`.

        They are [n, labels], followed by a column for each conditional probability that is served, then by the vectors
        of two towers.

        Raises ModelError if the network fails.
        """
        self._check_inputs(inputs)
        with self._naming_the_model(inputs):
            # Called without the dispatch of tf.function, which takes longer than a small network.
            self._predict = self._predict or self._served.get_concrete_function()
            return np.asarray(self._predict(tf.constant(inputs)).numpy(), np.float32)

    def outputs(self, inputs: Float32s) -> Float32s:
        """[n, labels] float32, the outputs of inputs [n, columns], as `step` returns them, but as for predictions.

        Raises ModelError if the network fails.
        """
        self._check_inputs(inputs)
        with self._naming_the_model(inputs):
            return np.asarray(self._logits(inputs)[:, : len(self._labels)].numpy(), np.float32)

    def outputs_by(self, packed: bytes, inputs: Float32s) -> Float32s:
        """`outputs` by other dense weights, those of `serving_bytes`, also rounded ones; beside a step, too.

        Raises as `outputs`, and DamagedError.
        """
        self._check_inputs(inputs)
        arrays = serving_arrays(unpack(packed))
        check_shapes(arrays, self._served_shapes)
        values = {id(v): arrays[f"variable/{i}/{v.name}"] for i, v in enumerate(self._model.variables)}
        trained = [tf.constant(values[id(v)]) for v in self._model.trainable_variables]
        others = [tf.constant(values[id(v)]) for v in self._model.non_trainable_variables]
        with self._naming_the_model(inputs):
            outputs = self._by_weights(tf.constant(inputs), trained, others)
            return np.asarray(outputs[:, : len(self._labels)].numpy(), np.float32)

    def losses(self, inputs: Float32s, targets: Targets) -> Float32s:
        """[n, labels] what progressive validation scores of n samples: losses without the weights of labels.

        Raises ModelError if the network fails.
        """
        self._check_inputs(inputs)
        with self._naming_the_model(inputs):
            outputs = self._logits(inputs)
            return np.asarray(scored_losses(self._losses, outputs, targets).numpy(), np.float32)

    def weights_bytes(self) -> bytes:
        """Every variable (also of normalisation and dropout) and the optimizer's state; they decide the bytes alone."""
        return pack(self._variables() | self._training.optimizer.arrays() | self._scaling.arrays())

    def load_weights(self, packed: bytes) -> None:
        """Continue from `weights_bytes`. Raises DamagedError, and ModelError for weights of another model."""
        self._assign(unpack(packed), self._shapes)

    def load_matching(self, packed: bytes, *, optimizer: bool = True) -> list[str]:
        """After a migration: load weights of the same name and shape; returns the names that stay as built.

        With `optimizer`, its state is loaded too; that of an optimizer of Keras completely or not at all.
        """
        loaded, state = unpack(packed), self._training.optimizer.arrays()
        built = self._variables() | state | self._scaling.arrays()
        same = {n for n, a in loaded.items() if n in built and (a.dtype, a.shape) == (built[n].dtype, built[n].shape)}
        counted = {n for n in state if n.startswith("optimizer/")}
        if not optimizer or not counted <= same:
            same -= set(state) if not optimizer else counted
        self._assign(built | {name: loaded[name] for name in same}, self._shapes)
        return sorted(set(built) - same)

    def serving_bytes(self) -> bytes:
        """The variables, and the statistics of dense inputs, without the optimizer's state: what predictions need."""
        return pack(self._variables() | self._scaling.arrays())

    def load_serving(self, packed: bytes) -> None:
        """Predict from `serving_bytes`, also rounded ones, or `weights_bytes`. Raises as `load_weights`."""
        self._assign(serving_arrays(unpack(packed)), self._served_shapes)

    @property
    def curvature(self) -> Curvature:
        """Which variables the optimizer moves, and where `weights_bytes` shows how much the loss depends on them."""
        names = {id(v): f"variable/{i}/{v.name}" for i, v in enumerate(self._model.variables)}
        optimizer = self._training.optimizer
        trained = zip(self._model.trainable_variables, optimizer.squares, strict=True)
        moved = {names[id(v)]: squares for v, squares in trained if v.dtype == "float32"}
        return Curvature(moved, optimizer.initial_square)

    @property
    def loss_sources(self) -> dict[str, str]:
        """By label, the digest of the user's code that computes its loss."""
        return {loss.label.name: loss.source_digest for loss in self._losses if loss.source_digest}

    def digest(self) -> str:
        """Hex SHA-256 of architecture and source, without weights."""
        return model_digest(self._model, self._function)

    def try_step(self) -> None:
        """Predict and take a step, to find what fails on any batch, or without elements of lists; the weights change.

        Raises ModelError.
        """
        trial, n = TrialInstances.of(self._config, self.layout), min(2, self._batch_size)
        trial.check_predictions(self.predict(trial.inputs))
        inputs, targets = trial.batch(n + self._drawn), trial_targets(n, self._labels)
        result = self.step(inputs, targets)
        if trial.fields and result.finite and np.isfinite(result.gradient).all():
            inputs[n - 1] = trial.inputs[-1]
            result = self.step(inputs, targets)
            trial.check_gradient(result.gradient, finite=result.finite)

    def part(self, labels: Sequence[str]) -> PartModel:
        """The outputs of some labels, to be served apart. Raises ModelError if the network computes them together."""
        return PartModel(self._config, self._model, self._function.reference, labels)

    def pair(self, label: str, of_items: Callable[[Config], Collection[str]]) -> PairModel:
        """A label over pairs of a user and an item. Raises as `PairModel`."""
        return PairModel(self._config, self._model, self._function.reference, label, of_items)

    @property
    def item_inputs(self) -> frozenset[str]:
        """The names of the inputs that the item tower depends on; none without two towers."""
        towers = self._config.towers
        return frozenset() if towers is None else self._subnetwork(towers.item).inputs

    def _naming_the_model(self, inputs: Float32s) -> AbstractContextManager[None]:
        """Raise what the user's code raises for `inputs` as ModelError."""
        return naming_the_model(self._function.reference, inputs, self._logits)

    def _call(self, inputs: Any, training: bool = False) -> Any:
        return joint_logits(self._labels, self._outputs(inputs, training))

    def _call_by(self, inputs: Any, trained: Any, others: Any) -> Any:
        given = named_inputs(self.layout, inputs)
        outputs, _ = self._model.stateless_call(trained, others, given, training=False)
        return joint_logits(self._labels, tf.cast(outputs, tf.float32))

    def _serve(self, inputs: Any) -> Any:
        return predictions(self._labels, self._outputs(inputs, training=False))

    def _items(self, inputs: Any, training: bool) -> Any:
        given = named_inputs(self.layout, inputs)
        vectors = self._item_tower({name: given[name] for name in self._item_tower.input}, training=training)
        return tf.cast(vectors[0] if isinstance(vectors, list) else vectors, tf.float32)

    def _subnetwork(self, name: str) -> Subnetwork:
        return Subnetwork.of(self._model, self._config.output_names, (name,), vector_names(self._labels))

    def _outputs(self, inputs: Any, training: bool) -> Any:
        return tf.cast(self._model(named_inputs(self.layout, inputs), training=training), tf.float32)

    def _variables(self) -> dict[str, npt.NDArray[Any]]:
        return {f"variable/{i}/{v.name}": v.numpy() for i, v in enumerate(self._model.variables)}

    def _assign(self, arrays: Arrays, expected: Shapes) -> None:
        check_shapes(arrays, expected)
        for i, variable in enumerate(self._model.variables):
            variable.value.assign(arrays[f"variable/{i}/{variable.name}"])
        self._scaling.load(arrays)
        if self._training.optimizer.names <= arrays.keys():
            self._training.optimizer.load(arrays)

    def _check_inputs(self, inputs: Float32s) -> None:
        if inputs.dtype != np.float32 or inputs.ndim != 2 or inputs.shape[1] != self.layout.columns:
            got = f"{list(inputs.shape)} {inputs.dtype}"
            raise InputError(f"got inputs {got}, wanted [n, {self.layout.columns}] float32")


def _matrix(rows: int | None, columns: int) -> Any:
    return tf.TensorSpec([rows, columns], tf.float32)
