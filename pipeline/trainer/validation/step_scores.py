"""From the result of a step to the scores of its samples, by the loss of each label."""

from typing import Any

import numpy as np

from pipeline.configuration.model.labels import LabelConfig
from pipeline.model.dense import StepResult
from pipeline.model.loss.late_odds import logits_of_odds
from pipeline.model.loss.targets import Targets
from pipeline.trainer.validation.binary_scores import binary_scores
from pipeline.trainer.validation.label_validation import LabelScores
from pipeline.trainer.validation.numeric_scores import NumericBatch, numeric_scores
from pipeline.trainer.validation.retrieval_scores import retrieval_scores


def scores_of(label: LabelConfig, number: int, targets: Targets, result: StepResult) -> LabelScores:
    """The scores of the samples that observe label `number`."""
    observed = targets.observed[:, number]

    def of_observed(of_label: Any) -> Any:
        return np.asarray(of_label if observed.all() else of_label[observed], np.float64)

    def column(values: Any) -> Any:
        return of_observed(values[:, number])

    positive, negative = column(targets.scored_positive), column(targets.scored_negative)
    if label.logistic:
        logits = column(result.logits)
        return binary_scores(logits_of_odds(logits) if label.link == "odds" else logits, positive, negative)
    loss, values, earlier = column(result.losses) / label.weight, column(targets.value), column(targets.earlier)
    if label.towers is not None:
        return retrieval_scores(positive, loss, of_observed(result.ranks), label.towers.recall_at)
    return numeric_scores(
        NumericBatch(column(result.logits), loss, positive, negative, values, earlier),
        "exp" if label.link == "exp" else "identity",
    )
