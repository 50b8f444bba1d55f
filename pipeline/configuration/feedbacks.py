"""The feedbacks of a configuration: the kinds of event that decide the labels of an impression.

Clicks are the feedback whose settings are in `[samples]`; `[events.NAME]` declares further ones.
"""

from dataclasses import dataclass

from pipeline.arrays.block import EventKind
from pipeline.configuration.events import CLICKS, IMPRESSIONS, EventColumns, Events, Policy, Samples
from pipeline.configuration.labels import LabelConfig
from pipeline.configuration.logs import Topics

_DEFAULT_RANGE = (0.0, 1.0)


@dataclass(frozen=True)
class FeedbackLabel:
    """A label that a feedback decides.

    Attributes:
        name: of the label.
        column: the event's numeric column that holds it; None: it is 1 if there is an event.
        range: smallest and largest value of that column.
    """

    name: str
    column: str | None
    range: tuple[float, float] = _DEFAULT_RANGE


@dataclass(frozen=True)
class Feedback:
    """A kind of event that decides labels, and how it is joined; times are those of `[samples]` or `[events.NAME]`."""

    kind: EventKind
    topic: str
    events: EventColumns
    window_s: float
    horizon_s: float
    policy: Policy
    labels: tuple[FeedbackLabel, ...]


def feedbacks_of(
    events: Events, samples: Samples, topics: Topics, declared: tuple[LabelConfig, ...] = ()
) -> tuple[Feedback, ...]:
    """Clicks, if there are any, then the further feedbacks in the order of the file.

    The labels of clicks are those of `samples.labels`, or all that are `declared` and no further feedback has.
    """
    found = []
    if events.clicks is not None:
        of_clicks = [label for label in declared if label.name not in events.further]
        ranges = {label.name: label.limits for label in of_clicks} or samples.label_ranges
        first, *further = [label.name for label in of_clicks] or samples.labels
        labels = [FeedbackLabel(first, None)]
        labels += [FeedbackLabel(n, n, ranges.get(n, _DEFAULT_RANGE)) for n in further]
        settings = (samples.window_s, samples.horizon_s, samples.policy)
        found.append(Feedback(CLICKS, topics.clicks, events.clicks, *settings, tuple(labels)))
    for kind, each in events.further.items():
        label = FeedbackLabel(kind, None)
        topic = kind if each.topic is None else each.topic
        found.append(Feedback(kind, topic, each, each.window_s, each.horizon_s, each.policy, (label,)))
    return tuple(found)


def input_topics(topics: Topics, feedbacks: tuple[Feedback, ...]) -> dict[EventKind, str]:
    """The topics that the join reads, by kind of event; impressions first."""
    return {IMPRESSIONS: topics.impressions} | {feedback.kind: feedback.topic for feedback in feedbacks}


def unread_click_settings(events: Events, samples: Samples, topics: Topics) -> list[str]:
    """A problem for every setting of clicks in a configuration without clicks."""
    if events.clicks is not None:
        return []
    of_clicks = ("window_s", "horizon_s", "policy", "labels", "label_ranges")
    names = [f"samples.{name}" for name in of_clicks if name in samples.model_fields_set]
    names += ["topics.clicks"] if "clicks" in topics.model_fields_set else []
    return [f"{name} is a setting of clicks, and events.clicks is missing. hint: remove it" for name in names]
