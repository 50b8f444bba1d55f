"""The loss of labels that another label teaches: log loss against its probability.

With z the output of the label, p the probability of its teacher and λ the setting `distill`, a sample of weight v adds

    λ · v · (−p log σ(z) − (1 − p) log(1 − σ(z)))

No gradient flows through p: soft targets at temperature 1 (Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in
a Neural Network", section 2), for rankers Tang and Wang 2018, "Ranking Distillation: Learning Compact Ranking Models
With High Performance for Recommender System". v is the label's weight of the sample, summed over both values: an
impression counts once, because the weights of a compensation that takes back its negative add up to zero. Both outputs
are those that serving uses: without the correction for down-sampled negatives.

A candidate that was not shown has no values: a label with `candidates` learns the logged score of the fine ranker as p.
The samples of a ranker that sees all candidates are then no longer those that a ranker has selected (Qin et al. 2022,
"RankFlow: Joint Optimization of Multi-Stage Cascade Ranking Systems as Flows", on training each stage on the items that
it meets when it serves).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.configuration.model.labels import LabelConfig
from pipeline.model.runtime import tf


@dataclass(frozen=True)
class Lesson:
    """That one output teaches another, by their places among the outputs, and its weight λ."""

    learner: int
    teacher: int
    weight: float
    candidates: bool = False
    """Whether logged scores of candidates teach it too."""


def lessons_of(labels: Sequence[LabelConfig]) -> tuple[Lesson, ...]:
    """One for every label with a teacher.

    >>> lessons_of([LabelConfig(name="fine"), LabelConfig(name="coarse", teacher="fine", distill=0.5)])
    (Lesson(learner=1, teacher=0, weight=0.5, candidates=False),)
    """
    places = {label.name: place for place, label in enumerate(labels)}
    return tuple(
        Lesson(place, places[label.teacher], 1.0 if label.distill is None else label.distill, label.candidates)
        for place, label in enumerate(labels)
        if label.teacher is not None
    )


def soft_target_losses(lessons: Sequence[Lesson], outputs: Any, weights: Any, soft: Any = None) -> Any:
    """[n, labels] what the lessons add to the losses; zeros for a label without a teacher.

    Args:
        lessons: of the labels.
        outputs: [n, labels] logits.
        weights: [n, labels] v.
        soft: [n, 2] as `Targets.soft`; None if no label learns candidates.
    """
    columns = [tf.zeros_like(outputs[:, i]) for i in range(outputs.shape[1])]
    for lesson in lessons:
        z = outputs[:, lesson.learner]
        p = taught_probability(outputs[:, lesson.teacher], soft if lesson.candidates else None)
        columns[lesson.learner] = lesson.weight * weights[:, lesson.learner] * (tf.nn.softplus(z) - p * z)
    return tf.stack(columns, axis=1)


def taught_probability(teacher: Any, soft: Any = None) -> Any:
    """[n] p: that of the teacher's outputs [n] without a gradient; of candidates in `soft` the logged score."""
    p = tf.stop_gradient(tf.sigmoid(teacher))
    return p if soft is None else tf.where(soft[:, 1] > 0, soft[:, 0], p)


def taught_weights(labels: Sequence[LabelConfig], weights: Any, soft: Any = None) -> Any:
    """[n, labels] v: `weights` [n, labels] of values; of candidates in `soft` the weights of sample and label."""
    if soft is None:
        return weights
    return weights + soft[:, 1:] * tf.constant([label.weight * label.candidates for label in labels], tf.float32)
