"""The feedbacks of a configuration: the kinds of event that decide the labels of an impression.

Clicks are the feedback whose settings are in `[samples]`; `[events.NAME]` declares further ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.arrays.block import EventKind
from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.model.late_estimates import estimators_of
from pipeline.configuration.streams.events import CLICKS, IMPRESSIONS, EventColumns, Events, Policy, Samples
from pipeline.configuration.streams.logs import Topics

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

    The labels are those `declared`; without any, those of `samples.labels`, and one of each further feedback.
    """
    of: dict[EventKind, list[FeedbackLabel]] = {kind: [] for kind in events.feedbacks}
    own = [label for label in declared if label.target is None]
    for label in own or [LabelConfig(name=n, range=samples.label_ranges.get(n)) for n in samples.labels]:
        kind = label.event or (label.name if declared and label.name in events.further else CLICKS)
        # Of clicks without an event or column, the first label is the click itself.
        column = label.name if kind == CLICKS and label.event is None and of.get(kind) else None
        if kind in of:
            of[kind].append(FeedbackLabel(label.name, label.column or column, label.limits))
    found = []
    if events.clicks is not None:
        settings = (samples.window_s, samples.horizon_s, samples.policy)
        of_clicks = of[CLICKS] or [FeedbackLabel(samples.labels[0], None)]
        found.append(Feedback(CLICKS, topics.clicks, events.clicks, *settings, tuple(of_clicks)))
    for kind, each in events.further.items():
        topic = kind if each.topic is None else each.topic
        labels = of[kind] or [FeedbackLabel(kind, None)]
        found.append(Feedback(kind, topic, each, each.window_s, each.horizon_s, each.policy, tuple(labels)))
    return tuple(found)


def policies_by_label(feedbacks: Sequence[Feedback]) -> dict[str, Policy]:
    """By label, the policy of the feedback that decides it."""
    return {label.name: feedback.policy for feedback in feedbacks for label in feedback.labels}


def correction_problems(feedbacks: Sequence[Feedback], labels: Sequence[LabelConfig]) -> list[str]:
    """What is wrong with the corrections of labels under the policies of their feedbacks."""
    policies, estimated = policies_by_label(feedbacks), estimators_of(labels)
    labels = [label for label in labels if label.estimates is None]
    waiting = [label for label in labels if policies.get(label.source) in ("wait", "close")]
    faked = [label for label in labels if policies.get(label.source) == "fake_negative"]
    return [
        *(
            f"label {label.name} has no late_share, and its feedback waits. hint: set the share of late positives, or "
            "declare labels that estimate it"
            for label in waiting
            if label.correction == "importance" and label.late_share is None and label.source not in estimated
        ),
        *(
            f"label {label.name} has correction calibration, and its feedback waits. hint: policy = 'fake_negative'"
            for label in waiting
            if label.correction == "calibration"
        ),
        *(
            f"label {label.name} has late_share {label.late_share:g}, but its feedback is fake_negative. hint: omit it"
            for label in faked
            if label.correction == "importance" and label.late_share is not None
        ),
    ]


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
