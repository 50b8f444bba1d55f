"""One training step of the network, as TensorFlow functions: losses, gradient, optimizer.

The objective of a batch of n samples is the summed loss of its samples plus n times the network's own losses
(regularisers and `add_loss`), as Keras adds those to a mean. The network sees the n samples and no other rows. A full
batch runs compiled by XLA, which compiles each size for itself; a shorter one runs a function of any size: the size
decides, so the bytes are repeatable.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.arrays.types import Float32s
from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.model.towers import towers_of
from pipeline.configuration.model.training import Model
from pipeline.errors import ModelError
from pipeline.model.loss.late_labels import importance_weights, late_estimates_of
from pipeline.model.loss.list_terms import list_term_losses, list_terms_of
from pipeline.model.loss.losses import LabelLoss, batch_losses, weighted_losses
from pipeline.model.loss.soft_targets import lessons_of, soft_target_losses, taught_weights
from pipeline.model.loss.targets import Targets
from pipeline.model.runtime import graph_function, keras, tf
from pipeline.model.training.optimizer import Optimizer

INITIAL_ACCUMULATOR = 0.1
"""Of the default optimizer."""
BATCH_ITEMS = {"items": tf.int32, "log_q": tf.float32, "first": tf.bool}
"""What the step reads of `BatchItems`."""


class Calls(NamedTuple):
    """The network as functions of (inputs [n, columns], training)."""

    outputs: Callable[..., Any]
    """→ logits [n, labels] float32, then the vectors of two towers."""
    items: Callable[..., Any]
    """→ vectors [n, dim] of the item tower, float32, of a model that draws items."""


class TrainingStep:
    """The trainable variables of a network with their optimizer. Not thread-safe."""

    def __init__(
        self, model: keras.Model, calls: Calls, columns: int, losses: Sequence[LabelLoss], settings: Model
    ) -> None:
        """`columns`: number of input columns. The network's Python code runs at the first batch."""
        self._model, self._calls, self._columns, self._losses = model, calls, columns, losses
        self._logistic = [loss.label.logistic for loss in losses]
        labels = [loss.label for loss in losses]
        self._lessons, self._list_terms = lessons_of(labels), list_terms_of(labels)
        self._late_shares = [label.corrected_late_share for label in labels]
        self._late_estimates = late_estimates_of(labels)
        self._targets, towers = _read_of(labels), towers_of(labels)
        self._of_items = () if towers is None else tuple(BATCH_ITEMS)
        self._drawn = 0 if towers is None else towers.drawn
        self._batch_size, self.optimizer = settings.batch_size, Optimizer(model, settings)
        self._trained = [variable.value for variable in model.trainable_variables]
        self._short: Any = None
        self._full: Any = None

    def run(self, inputs: Float32s, targets: Targets) -> tuple[Any, ...]:
        """Learn from n ≤ batch_size samples, whose inputs those of the m drawn items follow.

        Returns:
            (summed loss of the samples, the network's own losses, outputs [n, labels], gradient [n + m, columns] of the
            objective, whether all variables and the optimizer are finite afterwards, loss [n, labels] of each sample
            unless all labels are logistic, rank [n] of its item if a label has two towers).

        Raises:
            ModelError: the network fails on any batch, or keeps state outside its variables.
            tf.errors.OpError: it fails on this batch.
        """
        columns = [inputs, *(getattr(targets, name) for name in self._targets)]
        columns += [getattr(targets.batch_items, name) for name in self._of_items]
        batch = [tf.constant(column) for column in columns]
        self.optimizer.begin(len(targets))
        if len(targets) < self._batch_size:
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
        rows = None if size is None else size + self._drawn
        signature = [tf.TensorSpec([rows, self._columns], tf.float32)]
        for name in self._targets:
            shape = {"log_rate": [size], "soft": [size, 2]}.get(name, [size, len(self._losses)])
            signature.append(tf.TensorSpec(shape, tf.int32 if name == "lists" else tf.float32))
        signature += [tf.TensorSpec([rows], BATCH_ITEMS[name]) for name in self._of_items]
        learn = graph_function(self._learn, input_signature=signature, jit_compile=size is not None)
        # Called without the dispatch of tf.function, which takes longer than a small network.
        step = learn.get_concrete_function()
        _check_state(step.graph, [v.value for v in self._model.variables] + self.optimizer.variables)
        _check_random(step.graph)
        return step

    def _learn(self, inputs: Any, *columns: Any) -> Any:
        targets = dict(zip((*self._targets, *self._of_items), columns, strict=True))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = self._calls.outputs(inputs[: -self._drawn] if self._drawn else inputs, training=True)
            # Read before the network computes drawn items, which removes them.
            own = [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in self._model.losses]
            logits, ranks = self._with_ranks(inputs, outputs, targets)
            losses = self._sample_losses(logits, targets)
            total = tf.reduce_sum(losses)
            penalty = tf.add_n(own) if own else tf.constant(0.0)
            objective = total + tf.cast(tf.shape(logits)[0], tf.float32) * penalty if own else total
        gradient, *weight_gradients = tape.gradient(
            objective, [inputs, *self._trained], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        self.optimizer.apply(weight_gradients)
        # An infinite accumulator would freeze its weight for good.
        state = [v.value for v in self._model.variables if v.value.dtype.is_floating] + self.optimizer.floats
        finite = [tf.reduce_all(tf.math.is_finite(variable)) for variable in state]
        result = total, penalty, logits, gradient, tf.reduce_all(tf.stack([*finite, True]))
        return result if all(self._logistic) else (*result, losses, *ranks)

    def _with_ranks(self, inputs: Any, outputs: Any, targets: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
        """The logits of `outputs`, and the ranks of two towers, whose losses are added to `targets` as `in_batch`."""
        if not self._of_items:
            return outputs, ()
        drawn = self._calls.items(inputs[-self._drawn :], training=True) if self._drawn else None
        items, log_q, first = (targets[name] for name in BATCH_ITEMS)
        targets["in_batch"], ranks = batch_losses(self._losses, outputs, items, log_q, first, drawn)
        return outputs[:, : len(self._losses)], (ranks,)

    def _sample_losses(self, logits: Any, targets: Mapping[str, Any]) -> Any:
        """[n, labels]"""
        losses, positive = self._own_losses(logits, targets), targets["positive"]
        if not (self._lessons or self._list_terms):
            return losses
        soft = targets.get("soft")
        weights = taught_weights([loss.label for loss in self._losses], positive + targets["negative"], soft)
        if self._lessons:
            losses += soft_target_losses(self._lessons, logits, weights, soft)
        if self._list_terms:
            losses += list_term_losses(self._list_terms, logits, positive, weights, targets["lists"], soft)
        return losses

    def _own_losses(self, logits: Any, targets: Mapping[str, Any]) -> Any:
        """[n, labels] without what other labels and lists add."""
        positive, negative, log_rate = targets["positive"], targets["negative"], targets["log_rate"]
        if any(self._late_shares):
            of_positives, of_negatives = importance_weights(logits, self._late_shares, self._late_estimates)
            positive, negative = positive * of_positives, negative * of_negatives
        if all(self._logistic):
            corrected = logits - log_rate[:, None]
            return positive * tf.nn.softplus(-corrected) + negative * tf.nn.softplus(corrected)
        corrected = logits - log_rate[:, None] * tf.constant(self._logistic, tf.float32)
        terms = [(positive, targets["value"]), (negative, targets["earlier"])]
        return weighted_losses(self._losses, corrected, terms, targets.get("lists"), targets.get("in_batch"))


def _read_of(labels: Sequence[LabelConfig]) -> tuple[str, ...]:
    """The names of what the step reads of `Targets`."""
    values = () if all(label.logistic for label in labels) else ("value", "earlier")
    lists = ("lists",) if any(label.learns_lists for label in labels) else ()
    soft = ("soft",) if any(label.candidates for label in labels) else ()
    return ("positive", "negative", "log_rate", *values, *lists, *soft)


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
