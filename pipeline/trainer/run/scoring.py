"""Progressive validation of a batch: each label by the samples that observe it, and the order of its lists."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.arrays.keys import hash_column
from pipeline.arrays.types import Float32s, Int64s
from pipeline.configuration.config import Config
from pipeline.configuration.model.gate import GateConfig, gated_label
from pipeline.configuration.model.labels import LabelConfig
from pipeline.logs.events.sample_block import CANDIDATE, of_kind
from pipeline.model.dense import StepResult
from pipeline.trainer.batch.prefetch import PreparedBatch
from pipeline.trainer.commit.boundary_snapshot import TrainerProgress
from pipeline.trainer.validation.gate.calibration import GateSamples
from pipeline.trainer.validation.list_validation import ListedSamples
from pipeline.trainer.validation.step_scores import scores_of

_SOURCE_SEED = 0x6A7E


def score_batch(
    labels: Sequence[LabelConfig], progress: TrainerProgress, prepared: PreparedBatch, result: StepResult, log_ms: int
) -> None:
    """Count a batch in the validations of `progress`, by the outputs before it was learned.

    Args:
        labels: all of them, in the order of the outputs.
        progress: of the shard.
        prepared: the batch.
        result: of its step.
        log_ms: log time after it.
    """
    targets, at_ms, events = prepared.targets, prepared.batch.at_ms, prepared.events
    for i, label in enumerate(labels):
        observed = targets.observed[:, i]
        scores, everything = scores_of(label, i, targets, result), bool(observed.all())
        progress.validations[label.name].score(scores, at_ms if everything else at_ms[observed])
        progress.matured[label.name].score(scores, events if everything else events.where(observed), log_ms)
    for name, validation in progress.lists.items():
        validation.score(_listed_samples(labels, name, prepared, result.logits))


def gate_samples(config: Config, prepared: PreparedBatch, outputs: Float32s) -> GateSamples:
    """The samples of a batch that the gate tests: those that observe its label, without compensations.

    Negatives may have been down-sampled: the log-odds are those of what is in the log, the output less the logarithm of
    the rate. `outputs`: [n or more, labels] of the network for the n samples, before it learns from them.
    """
    assert config.gate is not None
    number, targets = gated_label(config.gate, config.outputs), prepared.targets
    assert number is not None
    positive, both = targets.positive[:, number], targets.positive[:, number] + targets.negative[:, number]
    chosen = targets.observed[:, number] & ~of_kind(prepared.batch.samples, "compensation") & (both > 0)
    logits = outputs[: len(chosen), number][chosen].astype(np.float64)
    labels = positive[chosen].astype(np.float64) / both[chosen].astype(np.float64)
    return GateSamples(logits - targets.log_rate[chosen], labels, _sources(config.gate, prepared)[chosen])


def _sources(gate: GateConfig, prepared: PreparedBatch) -> Int64s:
    """[n] the group of each sample; samples from before the column was declared are in group 0."""
    samples = prepared.batch.samples
    if gate.source is None or gate.source not in samples.schema.names:
        return np.zeros(len(samples), np.int64)
    return (hash_column(samples.column(gate.source), _SOURCE_SEED) % np.uint64(gate.groups)).astype(np.int64)


def _listed_samples(
    labels: Sequence[LabelConfig], name: str, prepared: PreparedBatch, outputs: Float32s
) -> ListedSamples:
    """Impressions that observe label `name` when its window closes, and candidates that were not shown.

    Args:
        labels: all of them, in the order of the outputs.
        name: that of a label with a list column.
        prepared: the batch of n samples.
        outputs: [n, labels] of the network, before it learns from the batch.
    """
    places = {label.name: place for place, label in enumerate(labels)}
    own, samples, targets = places[name], prepared.batch.samples, prepared.targets
    column = labels[own].list_column
    known = column in samples.schema.names
    lists = samples.column(column) if known else pa.nulls(len(samples), pa.string())
    member = (targets.observed[:, own] & ~of_kind(samples, "compensation")) | of_kind(samples, CANDIDATE)
    member &= lists.is_valid().to_numpy(zero_copy_only=False)
    chosen, fine = np.flatnonzero(member), places.get(labels[own].teacher or "", own)
    return ListedSamples(
        lists.take(pa.array(chosen)).cast(pa.string()),
        prepared.batch.at_ms[chosen],
        outputs[chosen, own].astype(np.float64),
        outputs[chosen, fine].astype(np.float64),
        targets.scored_positive[chosen, own] > 0,
    )
