"""What serving loses compared with the trainer, and its calibration, on the first batch after a commit.

Measured before the batch is learned. Both compute the outputs of the same samples: the trainer by its rows and dense
weights, serving by those that it holds. The mean Kullback–Leibler divergence of the predictions is what serving's log
loss is greater by if the trainer's predictions are right; labels, whose noise is far larger, are not needed. Labels
with other losses are not measured. Calibration is that of progressive validation, of the predictions of serving.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.features.plan import FieldKeys
from pipeline.features.pooled_rows import RowLookup, write_pooled_rows
from pipeline.publish.precision.scores import divergence, entropy, sigmoid
from pipeline.trainer.batch.prefetch import PreparedBatch

MOST_SAMPLES = 512
"""Of a batch that are compared: divergences vary little, and the price averages over commits."""


@dataclass(frozen=True)
class FirstBatch:
    """The first samples of the first batch after a commit, as the trainer sees them.

    Attributes:
        inputs: [n, columns] float32, of the network.
        outputs: [n, labels] float32, of the network.
        keys: by field.
        weights: [n, labels] float32, of the samples in the loss of each label; 0 for labels that are not measured.
        log_rate: [n] float32, of down-sampling.
        positives: [n, labels] float32, weights of the samples as positives in validation; 0 likewise.
        scored: [n, labels] float32, their weights in validation; 0 likewise.
    """

    inputs: Float32s
    outputs: Float32s
    keys: Mapping[str, FieldKeys]
    weights: Float32s
    log_rate: Float32s
    positives: Float32s
    scored: Float32s

    @classmethod
    def of(cls, config: Config, prepared: PreparedBatch, inputs: Float32s, outputs: Float32s) -> "FirstBatch":
        """That of n samples of a batch: its first n inputs, and the outputs for them."""
        targets, n = prepared.targets, len(outputs)
        measured = targets.observed[:n] * _measured(config.outputs)
        weights = np.maximum(targets.positive[:n] + targets.negative[:n], 0) * measured
        positives = targets.scored_positive[:n] * measured
        return cls(
            inputs[:n].copy(), outputs, _keys_of(config, prepared.own(), n), weights.astype(np.float32),
            targets.log_rate[:n], positives, positives + targets.scored_negative[:n] * measured,
        )  # fmt: skip


@dataclass(frozen=True)
class ServedLoss:
    """What the predictions of serving are like on a first batch.

    Attributes:
        relative: how much more serving loses, relative to the trainer's loss; None if no sample observes a label, or if
            it is not finite.
        dense: the same by the dense weights of serving alone, with the rows of the trainer.
        calibration: by label, predicted positives over positives; labels with positives only.
    """

    relative: float | None
    dense: float | None
    calibration: dict[str, float]


def measures(config: Config) -> bool:
    """Whether some label can be measured."""
    return bool(_measured(config.outputs).any())


def served_loss(
    first: FirstBatch,
    config: Config,
    starts: Mapping[str, int],
    lookup: RowLookup,
    outputs_of: Callable[[Float32s], Float32s],
) -> ServedLoss:
    """The loss and the calibration of serving.

    Args:
        first: the batch.
        config: with its fields.
        starts: by field, its first column.
        lookup: of the rows that serving holds.
        outputs_of: inputs [n, columns] → outputs [n, labels] by the dense weights that serving holds.
    """
    outputs, by_dense = served_outputs(first, config, starts, lookup, outputs_of), outputs_of(first.inputs)
    names = [label.name for label in config.outputs]
    return ServedLoss(
        relative_loss(first, outputs), relative_loss(first, by_dense), _calibration(first, names, outputs)
    )


def served_outputs(
    first: FirstBatch,
    config: Config,
    starts: Mapping[str, int],
    lookup: RowLookup,
    outputs_of: Callable[[Float32s], Float32s],
) -> Float32s:
    """[n, labels] the outputs of serving. Args are those of `served_loss`."""
    inputs = first.inputs.copy()
    write_pooled_rows(config.fields, first.keys, lookup, starts, inputs)
    return outputs_of(inputs)


def relative_loss(first: FirstBatch, outputs: Float32s) -> float | None:
    """What `outputs` [n, labels] lose, relative to the trainer's loss; None without a label, or if it is not finite."""
    rate = first.log_rate.astype(np.float64)[:, None]
    own, served = (each.astype(np.float64) - rate for each in (first.outputs, outputs))
    total = float(np.cumsum(first.weights * entropy(own))[-1])
    measured = float(np.cumsum(first.weights * divergence(own, served))[-1]) / total if total > 0 else np.nan
    return measured if np.isfinite(measured) else None


def _calibration(first: FirstBatch, names: Sequence[str], outputs: Float32s) -> dict[str, float]:
    """By label, predicted positives over positives by `outputs` [n, labels]."""
    predicted = np.cumsum(first.scored * sigmoid(outputs.astype(np.float64)), axis=0)[-1]
    positives = np.cumsum(first.positives, axis=0, dtype=np.float64)[-1]
    ratios = {name: float(p / q) for name, p, q in zip(names, predicted, positives, strict=True) if q > 0}
    return {name: ratio for name, ratio in ratios.items() if np.isfinite(ratio)}


def _measured(labels: Sequence[LabelConfig]) -> Float32s:
    """[labels] 1 for those with a logistic loss."""
    return np.array([label.logistic for label in labels], np.float32)


def _keys_of(config: Config, own: PreparedBatch, n: int) -> dict[str, FieldKeys]:
    """Those of the first n samples."""
    fields = {}
    for field in config.fields:
        each = own.fields[field.name]
        end = int(each.offsets[n])
        keys = own.tables[field.table_name].keys[each.inverse[:end]]
        fields[field.name] = FieldKeys(keys, each.offsets[: n + 1], each.weights[:end])
    return fields
