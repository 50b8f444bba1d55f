"""One training step of the network, as TensorFlow functions: losses, gradient, optimizer.

The objective of a batch of n samples is the summed loss of its samples plus n times the network's own losses
(regularisers and `add_loss`), as Keras adds those to a mean. The network sees the n samples and no other rows. A full
batch runs compiled by XLA, which compiles each size for itself; a shorter one runs a function of any size: the size
decides, so the bytes are repeatable.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.arrays.types import Float32s, Int32s
from pipeline.configuration.model.training import Model
from pipeline.errors import ModelError
from pipeline.model.loss.late_labels import importance_weights
from pipeline.model.loss.losses import LabelLoss, weighted_losses
from pipeline.model.loss.soft_targets import lessons_of, soft_target_losses
from pipeline.model.loss.targets import Targets
from pipeline.model.runtime import keras, tf
from pipeline.model.training.optimizer import Optimizer

INITIAL_ACCUMULATOR = 0.1
"""Of the default optimizer."""

Call = Callable[..., Any]
"""(inputs [n, columns], training) → logits [n, labels] float32."""


class TrainingStep:
    """The trainable variables of a network with their optimizer. Not thread-safe."""

    def __init__(
        self, model: keras.Model, call: Call, columns: int, losses: Sequence[LabelLoss], settings: Model
    ) -> None:
        """`columns`: number of input columns. The network's Python code runs at the first batch."""
        self._model, self._call, self._columns, self._losses = model, call, columns, losses
        self._logistic = [loss.label.logistic for loss in losses]
        self._lessons = lessons_of([loss.label for loss in losses])
        self._late_shares = [loss.label.corrected_late_share for loss in losses]
        self._batch_size, self.optimizer = settings.batch_size, Optimizer(model, settings)
        self._trained = [variable.value for variable in model.trainable_variables]
        self._short: Any = None
        self._full: Any = None

    def run(self, inputs: Float32s, targets: Targets) -> tuple[Any, ...]:
        """Learn from n ≤ batch_size samples.

        Returns:
            (summed loss of the samples, the network's own losses, outputs [n, labels], gradient [n, columns] of the
            objective, whether all variables and the optimizer are finite afterwards, loss [n, labels] of each sample
            unless all labels are logistic).

        Raises:
            ModelError: the network fails on any batch, or keeps state outside its variables.
            tf.errors.OpError: it fails on this batch.
        """
        batch: tuple[Float32s | Int32s, ...] = (inputs, targets.positive, targets.negative, targets.log_rate)
        if not all(self._logistic):
            batch = (*batch, targets.value, targets.earlier)
        if targets.lists is not None:
            batch = (*batch, targets.lists)
        self.optimizer.begin(len(inputs))
        if len(inputs) < self._batch_size:
            return tuple(self._any_size()(*batch))
        self._full = self._full or self._traced(self._batch_size)
        try:
            return tuple(self._full(*batch))
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.NotFoundError):
            # Some operation of the user's model has no compiled form, in any run: the bytes stay repeatable.
            result = tuple(self._any_size()(*batch))
            self._full = self._any_size()
            return result

    def _any_size(self) -> Any:
        self._short = self._short or self._traced(None)
        return self._short

    def _traced(self, size: int | None) -> Any:
        labels = tf.TensorSpec([size, len(self._losses)], tf.float32)
        signature = [
            tf.TensorSpec([size, self._columns], tf.float32),
            labels,
            labels,
            tf.TensorSpec([size], tf.float32),
        ]
        signature += [] if all(self._logistic) else [labels, labels]
        if any(loss.label.list_column for loss in self._losses):
            signature.append(tf.TensorSpec([size, len(self._losses)], tf.int32))
        learn = tf.function(self._learn, input_signature=signature, jit_compile=size is not None)
        graph = learn.get_concrete_function().graph
        _check_state(graph, [v.value for v in self._model.variables] + self.optimizer.variables)
        _check_random(graph)
        return learn

    def _learn(self, inputs: Any, positive: Any, negative: Any, log_rate: Any, *values: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            logits = self._call(inputs, training=True)
            losses = self._sample_losses(logits, positive, negative, log_rate, values)
            if self._lessons:
                losses += soft_target_losses(self._lessons, logits, positive + negative)
            total = tf.reduce_sum(losses)
            own = [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in self._model.losses]
            penalty = tf.add_n(own) if own else tf.constant(0.0)
            objective = total + tf.cast(tf.shape(inputs)[0], tf.float32) * penalty if own else total
        gradient, *weight_gradients = tape.gradient(
            objective, [inputs, *self._trained], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        self.optimizer.apply(weight_gradients)
        # An infinite accumulator would freeze its weight for good.
        state = [v.value for v in self._model.variables if v.value.dtype.is_floating] + self.optimizer.floats
        finite = [tf.reduce_all(tf.math.is_finite(variable)) for variable in state]
        result = total, penalty, logits, gradient, tf.reduce_all(tf.stack([*finite, True]))
        return (*result, losses) if values else result

    def _sample_losses(self, logits: Any, positive: Any, negative: Any, log_rate: Any, values: Sequence[Any]) -> Any:
        """[n, labels]"""
        if any(self._late_shares):
            of_positives, of_negatives = importance_weights(logits, self._late_shares)
            positive, negative = positive * of_positives, negative * of_negatives
        if not values:
            corrected = logits - log_rate[:, None]
            return positive * tf.nn.softplus(-corrected) + negative * tf.nn.softplus(corrected)
        corrected = logits - log_rate[:, None] * tf.constant(self._logistic, tf.float32)
        terms = list(zip((positive, negative), values[:2], strict=True))
        return weighted_losses(self._losses, corrected, terms, *values[2:])


def _check_state(graph: Any, known: list[Any]) -> None:
    """Raise ModelError if the step uses a variable that versions do not hold: a restart would lose its value."""
    held = {id(variable) for variable in known}
    foreign = sorted({variable.name for variable in graph.variables if id(variable) not in held})
    if foreign:
        raise ModelError(
            f"the network uses variables that no layer of it holds: {', '.join(foreign)}. hint: make them with "
            "add_weight, and draw random numbers with a keras.random.SeedGenerator that is an attribute of the layer"
        )


def _check_random(graph: Any) -> None:
    """Raise ModelError if the step draws random numbers whose state versions do not hold."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    drawn = sorted({node.op for node in nodes if node.op in _STATEFUL_RANDOM})
    if drawn:
        raise ModelError(
            f"the network draws random numbers that a restart does not repeat: {', '.join(drawn)}. hint: use "
            "keras.random with a keras.random.SeedGenerator that is an attribute of the layer"
        )


_STATEFUL_RANDOM = frozenset(
    {
        "RandomUniform",
        "RandomUniformInt",
        "RandomStandardNormal",
        "ParameterizedTruncatedNormal",
        "TruncatedNormal",
        "RandomShuffle",
        "Multinomial",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "SampleDistortedBoundingBox",
        "SampleDistortedBoundingBoxV2",
        "UniformCandidateSampler",
        "LogUniformCandidateSampler",
        "LearnedUnigramCandidateSampler",
    }
)
"""Operations of TensorFlow that keep a counter outside of variables."""
