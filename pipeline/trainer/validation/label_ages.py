"""How long labels change: when the label of an impression is final, and the ages at which labels are compared."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.configuration.config import Config
from pipeline.configuration.streams.feedbacks import Feedback

_LADDER_S = (60, 3_600, 86_400, 7 * 86_400, 30 * 86_400)
_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_COHORTS_MS = (1_000, 10_000, 60_000, 600_000, 3_600_000, 6 * 3_600_000, 86_400_000)
_OPEN_COHORTS = 24
"""At most so many cohorts fit into the time in which a label changes, unless a day is too short for that."""


@dataclass(frozen=True)
class LabelAges:
    """The ages of the labels of one feedback, in ms after the impression.

    Attributes:
        final_ms: a later event does not change the label: window, horizon, and twice the disorder, up to which samples
            are out of order. Only an event that was late for its partition may; its sample counts when it comes.
        cohort_ms: impressions are grouped by so much of their time.
        ages_ms: ascending ages below window and horizon at which labels are compared with the final ones: a minute, an
            hour, a day, a week, 30 days, and the window.
    """

    final_ms: int
    cohort_ms: int
    ages_ms: tuple[int, ...] = ()

    @classmethod
    def of(cls, feedback: Feedback, disorder_s: float) -> "LabelAges":
        """Those of a feedback."""
        window_ms, horizon_ms, disorder_ms = (
            round(1000 * s) for s in (feedback.window_s, feedback.horizon_s, disorder_s)
        )
        attributed_ms = window_ms + horizon_ms
        ages_ms = {window_ms, *(1000 * age_s for age_s in _LADDER_S)}
        cohort_ms = next((c for c in _COHORTS_MS if attributed_ms <= _OPEN_COHORTS * c), _COHORTS_MS[-1])
        return cls(
            attributed_ms + 2 * disorder_ms, cohort_ms, tuple(sorted(age for age in ages_ms if age < attributed_ms))
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The ages as text."""
        return tuple(name_of_age(age_ms) for age_ms in self.ages_ms)


def name_of_age(age_ms: int) -> str:
    """An age in the largest unit that divides it.

    >>> name_of_age(3_600_000), name_of_age(90_000), name_of_age(1_500)
    ('1h', '90s', '1500ms')
    """
    return next(f"{age_ms // unit_ms}{unit}" for unit, unit_ms in _UNITS_MS if age_ms % unit_ms == 0)


def label_ages(config: Config) -> Mapping[str, LabelAges]:
    """By output, the ages of its labels."""
    of_source = {
        label.name: LabelAges.of(feedback, config.events.disorder_s)
        for feedback in config.feedbacks
        for label in feedback.labels
    }
    return {label.name: of_source[label.source] for label in config.outputs}
