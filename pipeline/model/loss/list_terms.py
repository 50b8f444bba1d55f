"""The term over lists that a logistic label has beside its log loss: cross entropy of shares in the list.

With z the output of a sample, Q its target and v its weight, a list adds

    − μ · Σ v · Q / ΣQ · log (σ(z) / Σσ(z))

over its samples, μ the setting `listwise`: ListCE with the sigmoid as transformation (Bai et al. 2023, "Regression
Compatible Listwise Objectives for Calibrated Ranking with Binary Relevance"). It is smallest where σ(z) is proportional
to Q, which the minimum of the log loss is too: a softmax of the outputs in its place would be smallest elsewhere, and
the label's probabilities would lose their calibration.

Q is the teacher's probability, through which no gradient flows, so the term is a listwise distillation (Cao et al.
2007, "Learning to Rank: From Pairwise Approach to Listwise Approach", with the probabilities of a teacher in place of
the judgements; Reddi et al. 2021, "RankDistil: Knowledge Distillation for Ranking"); or the label's value, a click.

A list is what one batch holds of it, as in `listwise`; a list whose targets are all 0 adds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.configuration.model.labels import LabelConfig
from pipeline.model.loss.listwise import list_losses
from pipeline.model.loss.soft_targets import taught_probability
from pipeline.model.runtime import tf


@dataclass(frozen=True)
class ListTerm:
    """The term of one label: the places of its output and of its teacher's, None for its own values; and μ."""

    learner: int
    teacher: int | None
    weight: float
    candidates: bool = False
    """Whether candidates are in its lists, with their logged scores as targets."""


def list_terms_of(labels: Sequence[LabelConfig]) -> tuple[ListTerm, ...]:
    """One for every label with `listwise`.

    >>> list_terms_of([LabelConfig(name="fine", list_column="request", listwise=0.5)])
    (ListTerm(learner=0, teacher=None, weight=0.5, candidates=False),)
    """
    places = {label.name: place for place, label in enumerate(labels)}
    taught = [label.teacher is not None and label.listwise_target != "value" for label in labels]
    return tuple(
        ListTerm(place, places[str(label.teacher)] if taught[place] else None, label.listwise, label.lists_candidates)
        for place, label in enumerate(labels)
        if label.listwise is not None
    )


def list_term_losses(
    terms: Sequence[ListTerm], outputs: Any, positive: Any, weights: Any, lists: Any, soft: Any = None
) -> Any:
    """[n, labels] what the terms add to the losses; zeros for a label without one.

    Args:
        terms: of the labels.
        outputs: [n, labels] logits as serving would use them.
        positive: [n, labels] v times the value.
        weights: [n, labels] v.
        lists: [n, labels] int32 number of each sample's list, below n; −1: it is in none.
        soft: [n, 2] as `Targets.soft`; None if no label learns candidates.
    """
    columns = [tf.zeros_like(outputs[:, i]) for i in range(outputs.shape[1])]
    for term in terms:
        i, places = term.learner, lists[:, term.learner]
        if term.teacher is None:
            target = tf.math.divide_no_nan(positive[:, i], weights[:, i])
        else:
            target = taught_probability(outputs[:, term.teacher], soft if term.candidates else None)
        values = weights[:, i] * _shares(target, places)
        columns[i] = term.weight * list_losses(values, -tf.nn.softplus(-outputs[:, i]), places)
    return tf.stack(columns, axis=1)


def _shares(targets: Any, lists: Any) -> Any:
    """[n] each target over the sum of its list; 0 outside of lists and where that sum is 0."""
    member, places = lists >= 0, tf.maximum(lists, 0)
    inside = tf.where(member, targets, 0.0)
    totals = tf.math.unsorted_segment_sum(inside, places, tf.shape(targets)[0])
    return tf.math.divide_no_nan(inside, tf.gather(totals, places))
