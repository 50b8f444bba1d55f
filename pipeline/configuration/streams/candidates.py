"""What candidates that were not shown need: a label that learns them, and columns that impressions have."""

from collections.abc import Sequence

from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.streams.events import CandidateEvents, Events
from pipeline.configuration.streams.feedbacks import Feedback


def candidate_window_s(
    candidates: CandidateEvents, labels: Sequence[LabelConfig], feedbacks: Sequence[Feedback]
) -> float:
    """How long after a candidate its sample is emitted."""
    return candidates.window_s or max(_windows_of(labels, feedbacks).values())


def candidate_problems(labels: Sequence[LabelConfig], feedbacks: Sequence[Feedback], events: Events) -> list[str]:
    """What is wrong with `[events.candidates]` and the labels that learn them.

    Args:
        labels: as they are declared.
        feedbacks: those of the configuration.
        events: the input events.
    """
    learners = [label for label in labels if label.candidates]
    if events.candidates is None:
        return [
            f"label {label.name} has candidates, and none are logged. hint: declare [events.candidates]"
            for label in learners
        ]
    problems = _column_problems(events, events.candidates)
    if not learners:
        problems.append("no label learns events.candidates. hint: candidates = true for a label with a teacher")
    return problems + _window_problems(events.candidates, learners, feedbacks)


def _column_problems(events: Events, candidates: CandidateEvents) -> list[str]:
    shown = events.impressions.columns
    problems = [
        f"candidates.columns.{name} is {kind}, and impressions have "
        f"{shown.get(name, 'no such column')}. hint: only events.candidates.score has a column of its own"
        for name, kind in candidates.shared_columns.items()
        if shown.get(name) != kind
    ]
    if candidates.columns.get(candidates.score) != "float":
        got = candidates.columns.get(candidates.score, "missing")
        problems.append(f"score {candidates.score} of events.candidates is {got}. hint: declare a float column")
    if candidates.score in shown:
        problems.append(f"score {candidates.score} of events.candidates is a column of impressions. hint: rename it")
    return problems


def _window_problems(
    candidates: CandidateEvents, learners: Sequence[LabelConfig], feedbacks: Sequence[Feedback]
) -> list[str]:
    """Problems for labels whose lists would be taken apart, because candidates leave at another time."""
    windows = _windows_of(learners, feedbacks)
    if candidates.window_s is None and len(set(windows.values())) > 1:
        found = ", ".join(f"{name} {window_s:g}" for name, window_s in windows.items())
        return [f"labels with candidates have several windows: {found} s. hint: set events.candidates.window_s"]
    return [
        f"label {label.name} has lists and a window of {windows[label.name]:g} s, events.candidates.window_s is "
        f"{candidates.window_s:g}, which takes lists apart. hint: leave it out"
        for label in learners
        if label.list_column is not None and candidates.window_s not in (None, windows.get(label.name))
    ]


def _windows_of(labels: Sequence[LabelConfig], feedbacks: Sequence[Feedback]) -> dict[str, float]:
    """By label that learns candidates, the window of its feedback (s)."""
    of_source = {label.name: feedback.window_s for feedback in feedbacks for label in feedback.labels}
    return {label.name: of_source[label.source] for label in labels if label.candidates and label.source in of_source}
