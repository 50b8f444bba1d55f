"""How much more serving loses than the trainer, measured on the first batch after a commit before it is learned.

Both compute the outputs of the same samples: the trainer by its rows and dense weights, serving by those that it holds.
The mean Kullback–Leibler divergence of the predictions is what serving's log loss is greater by if the trainer's
predictions are right; labels, whose noise is far larger, are not needed. Labels with other losses are not measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Float32s, Float64s
from pipeline.configuration.config import Config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.features.plan import FieldKeys
from pipeline.features.pooled_rows import write_pooled_rows
from pipeline.trainer.batch.prefetch import PreparedBatch
from pipeline.versions.deltas.served_view import ServedView


@dataclass(frozen=True)
class FirstBatch:
    """The first batch after a commit, as the trainer sees it.

    Attributes:
        inputs: [n, columns] float32, of the network.
        outputs: [n, labels] float32, of the network.
        keys: by field.
        weights: [n, labels] float32, of the samples in the loss of each label; 0 for labels that are not measured.
        log_rate: [n] float32, of down-sampling.
    """

    inputs: Float32s
    outputs: Float32s
    keys: Mapping[str, FieldKeys]
    weights: Float32s
    log_rate: Float32s

    @classmethod
    def of(cls, config: Config, prepared: PreparedBatch, inputs: Float32s, outputs: Float32s) -> "FirstBatch":
        """That of a batch of n samples: the first n inputs, and the outputs for them."""
        own, targets, n = prepared.own(), prepared.targets, len(prepared.batch)
        weights = np.maximum(targets.positive + targets.negative, 0) * targets.observed * _measured(config.outputs)
        return cls(inputs[:n].copy(), outputs, _keys_of(config, own), weights.astype(np.float32), targets.log_rate)


def measures(config: Config) -> bool:
    """Whether some label can be measured."""
    return bool(_measured(config.outputs).any())


def served_loss(
    first: FirstBatch,
    config: Config,
    starts: Mapping[str, int],
    views: Mapping[str, ServedView],
    outputs_of: Callable[[Float32s], Float32s],
) -> float | None:
    """The loss of serving relative to the trainer's; None if no sample observes a label, or it is not finite.

    Args:
        first: the batch.
        config: with its fields.
        starts: by field, its first column.
        views: by table, the rows that serving holds.
        outputs_of: inputs [n, columns] → outputs [n, labels] by the dense weights that serving holds.
    """
    inputs = first.inputs.copy()
    write_pooled_rows(config.fields, first.keys, lambda table, keys: views[table].decode(keys), starts, inputs)
    rate = first.log_rate.astype(np.float64)[:, None]
    own, served = first.outputs.astype(np.float64) - rate, outputs_of(inputs).astype(np.float64) - rate
    entropy, divergence = _entropy(own), _divergence(own, served)
    total = float(np.cumsum(first.weights * entropy)[-1])
    measured = float(np.cumsum(first.weights * divergence)[-1]) / total if total > 0 else np.nan
    return measured if np.isfinite(measured) else None


def _entropy(logits: Float64s) -> Float64s:
    """The log loss of predictions that are right."""
    entropy: Float64s = np.logaddexp(0, logits) - _sigmoid(logits) * logits
    return entropy


def _divergence(own: Float64s, served: Float64s) -> Float64s:
    """KL(own ‖ served) of Bernoulli distributions with these log-odds."""
    divergence: Float64s = _sigmoid(own) * (own - served) + np.logaddexp(0, served) - np.logaddexp(0, own)
    return divergence


def _sigmoid(logits: Float64s) -> Float64s:
    sigmoid: Float64s = np.exp(-np.logaddexp(0, -logits))
    return sigmoid


def _measured(labels: Sequence[LabelConfig]) -> Float32s:
    """[labels] 1 for those with a logistic loss."""
    return np.array([label.logistic for label in labels], np.float32)


def _keys_of(config: Config, own: PreparedBatch) -> dict[str, FieldKeys]:
    fields = {}
    for field in config.fields:
        each = own.fields[field.name]
        keys = own.tables[field.table_name].keys[each.inverse]
        fields[field.name] = FieldKeys(keys, each.offsets, each.weights)
    return fields
