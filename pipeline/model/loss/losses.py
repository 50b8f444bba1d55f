"""The losses of labels as TensorFlow functions of output and target, and what serving returns for an output.

| loss | of output z and target y | serving returns |
|---|---|---|
| logistic | −y log σ(z) − (1 − y) log(1 − σ(z)) | σ(z); with correction calibration exp(z), at most 1 |
| squared | (z − y)² | z |
| huber | ½e² with e = abs(z − y) up to δ, δe − ½δ² beyond (Huber 1964) | z |
| poisson | exp(z) − yz: negative log likelihood of a count without its constant | exp(z) |
| softmax | −y log softmax(z) within the sample's list (`listwise`) | z |
| in_batch | −y log softmax(z) over the items of the batch (`in_batch`) | z, and both vectors |
| module:function | the user's | z |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ModelError
from pipeline.features.user_code import load_function, summary_of
from pipeline.model.loss.in_batch import in_batch_losses
from pipeline.model.loss.listwise import list_losses
from pipeline.model.loss.targets import Targets
from pipeline.model.runtime import tf


@dataclass(frozen=True)
class LabelLoss:
    """The loss of one label.

    Attributes:
        label: its configuration.
        call: (target [n], output [n]) → loss [n], float32; for a loss over lists that of samples that are alone.
        source_digest: of the user's function; None for a loss of our own.
    """

    label: LabelConfig
    call: Callable[[Any, Any], Any]
    source_digest: str | None = None


def losses_of(labels: Sequence[LabelConfig], root: Path) -> tuple[LabelLoss, ...]:
    """The losses of the labels; user's functions come from folder `root`. Raises ModelError."""
    return tuple(_loss_of(label, root) for label in labels)


def weighted_losses(
    losses: Sequence[LabelLoss],
    outputs: Any,
    terms: Sequence[tuple[Any, Any]],
    lists: Any = None,
    in_batch: Any = None,
) -> Any:
    """[n, labels] the loss of each sample and label: the sum over `terms` of weight × loss of the value.

    Args:
        losses: of the labels.
        outputs: [n, labels] of the network; for logistic labels corrected for down-sampling.
        terms: (weights [n, labels], values [n, labels]); a loss over lists has the first term only.
        lists: [n, labels] of the samples if a label has such a loss.
        in_batch: [n] losses of samples with value 1 if a label has two towers.
    """
    columns = []
    for i, loss in enumerate(losses):
        z = outputs[:, i]
        if loss.label.over_lists:
            weights, values = terms[0]
            columns.append(list_losses(weights[:, i] * values[:, i], z, lists[:, i]))
            continue
        if loss.label.towers is not None:
            columns.append(terms[0][0][:, i] * in_batch)
            continue
        columns.append(tf.add_n([weights[:, i] * loss.call(values[:, i], z) for weights, values in terms]))
    return tf.stack(columns, axis=1)


def scored_losses(losses: Sequence[LabelLoss], outputs: Any, targets: Targets) -> Any:
    """[n, labels] the loss of each sample as progressive validation weighs it, for the outputs of the network.

    Args:
        losses: of the labels.
        outputs: [n, labels], then the vectors of two towers.
        targets: of the samples.
    """
    corrected = [
        _logits_of_odds(outputs[:, i]) if each.label.link == "odds" else outputs[:, i] for i, each in enumerate(losses)
    ]
    terms = [(targets.scored_positive, targets.value), (targets.scored_negative, targets.earlier)]
    in_batch = None
    if targets.batch_items is not None:
        in_batch, _ = batch_losses(losses, outputs, *vars(targets.batch_items).values())
    return weighted_losses(losses, tf.stack(corrected, axis=1), terms, targets.lists, in_batch)


def batch_losses(
    losses: Sequence[LabelLoss], outputs: Any, items: Any, log_q: Any, first: Any, drawn: Any = None
) -> tuple[Any, Any]:
    """`in_batch_losses` of the label with two towers.

    Args:
        losses: of the labels.
        outputs: [n, labels], then the vectors of query and item.
        items: [n + m] as in `BatchItems`, and so `log_q` and `first`.
        log_q: likewise.
        first: likewise.
        drawn: [m, dim] vectors of the drawn items; None without any.
    """
    towers = next(loss.label.towers for loss in losses if loss.label.towers is not None)
    query, item = tf.split(outputs[:, len(losses) :], 2, axis=1)
    vectors = item if drawn is None else tf.concat([item, drawn], axis=0)
    return in_batch_losses(query, vectors, towers.temperature, items, log_q, first)


def served(labels: Sequence[LabelConfig], outputs: Any) -> Any:
    """[n, labels] what serving returns for the outputs [n, labels] of the network."""
    if all(label.link == "sigmoid" for label in labels):
        return tf.sigmoid(outputs)
    return tf.stack([_LINKS[label.link](outputs[:, i]) for i, label in enumerate(labels)], axis=1)


def _loss_of(label: LabelConfig, root: Path) -> LabelLoss:
    if ":" not in label.loss:
        delta = 1.0 if label.delta is None else label.delta
        return LabelLoss(label, (lambda y, z: _huber(y, z, delta)) if label.loss == "huber" else _OWN[label.loss])
    function = load_function(root, label.loss)

    def call(target: Any, output: Any) -> Any:
        return tf.cast(tf.ensure_shape(function.call(target, output), target.shape), tf.float32)

    _try(label, call)
    return LabelLoss(label, call, function.source_digest)


def _try(label: LabelConfig, call: Callable[[Any, Any], Any]) -> None:
    """Call a user's loss on two samples. Raises ModelError."""
    low, high = label.limits
    target = tf.constant([min(max(0.0, low), high)] * 2, tf.float32)
    try:
        call(target, tf.zeros(2))
    except (Exception, SystemExit) as failure:
        raise ModelError(
            f"loss {label.loss} of label {label.name} failed: {summary_of(failure)}. "
            "hint: it takes target [n] and output [n], and returns the loss [n] of each sample"
        ) from failure


def _logistic(target: Any, output: Any) -> Any:
    return target * tf.nn.softplus(-output) + (1 - target) * tf.nn.softplus(output)


def _huber(target: Any, output: Any, delta: float) -> Any:
    error = tf.abs(output - target)
    return tf.where(error <= delta, 0.5 * error * error, delta * error - 0.5 * delta * delta)


def _odds(output: Any) -> Any:
    """σ(z) / (1 − σ(z)), at most 1."""
    return tf.exp(tf.minimum(output, 0.0))


def _logits_of_odds(output: Any) -> Any:
    """As `late_odds.logits_of_odds`."""
    z = tf.minimum(output, -1e-7)
    return z - tf.math.log(-tf.math.expm1(z))


_OWN: dict[str, Callable[[Any, Any], Any]] = {
    "logistic": _logistic,
    "squared": lambda target, output: tf.math.squared_difference(output, target),
    "poisson": lambda target, output: tf.exp(output) - target * output,
    "softmax": lambda target, output: tf.zeros_like(output),
    "in_batch": lambda target, output: tf.zeros_like(output),
}
_LINKS: dict[str, Callable[[Any], Any]] = {"sigmoid": tf.sigmoid, "odds": _odds, "exp": tf.exp, "identity": tf.identity}
