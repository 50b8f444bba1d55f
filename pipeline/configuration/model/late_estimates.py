"""Labels that estimate how late the positives of another label come, for the weights of its correction."""

from collections.abc import Mapping, Sequence

from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.streams.events import Policy

ESTIMATES = ("delayed_positive", "fake_negative")
_OWN_SETTINGS = frozenset({"name", "target", "estimates", "weight"})
"""What a label that estimates may set; `labels` refuses event, column and range of every label with a target."""


def estimators_of(labels: Sequence[LabelConfig]) -> dict[str, dict[str, LabelConfig]]:
    """By label of samples, the labels that estimate something about it, by what they estimate.

    >>> dp = LabelConfig(name="dp", target="bought", estimates="delayed_positive")
    >>> estimators_of([LabelConfig(name="bought"), dp])["bought"]["delayed_positive"].name
    'dp'
    """
    found: dict[str, dict[str, LabelConfig]] = {}
    for label in labels:
        if label.estimates is not None:
            found.setdefault(label.source, {})[label.estimates] = label
    return found


def estimate_problems(labels: Sequence[LabelConfig], policies: Mapping[str, Policy]) -> list[str]:
    """What is wrong with the labels that estimate; `policies` are those of the labels of samples."""
    estimators = [label for label in labels if label.estimates is not None]
    problems = [problem for label in estimators for problem in _own_problems(label)]
    for source in dict.fromkeys(label.source for label in estimators if label.target is not None):
        problems += _problems_of(source, [label for label in labels if label.source == source], policies.get(source))
    names = {label.name for label in estimators}
    problems += [
        f"label {label.name} has {setting} {other}, which estimates and is no event. hint: name another label"
        for label in labels
        for setting, other in (("teacher", label.teacher), ("given", label.given))
        if other in names
    ]
    return problems


def _own_problems(label: LabelConfig) -> list[str]:
    what = f"label {label.name} estimates {label.estimates}"
    if label.target is None:
        return [f"{what} without target. hint: set target to the label whose events come late"]
    foreign = sorted(label.model_fields_set - _OWN_SETTINGS - {"event", "column", "range"})
    return [f"{what} and has {name}, which has no effect on it. hint: leave {name} out" for name in foreign]


def _problems_of(source: str, labels: Sequence[LabelConfig], policy: Policy | None) -> list[str]:
    """Of all labels that learn from one label of samples."""
    estimates = [str(label.estimates) for label in labels if label.estimates is not None]
    weighted = [label for label in labels if label.estimates is None and label.correction == "importance"]
    problems = [
        f"label {source} has {estimates.count(each)} labels that estimate {each}, wanted one. "
        f"hint: declare one label each that estimates {' and '.join(ESTIMATES)}"
        for each in ESTIMATES
        if estimates.count(each) != 1
    ]
    if not any(label.late_share is None for label in weighted):
        got = "a late_share" if weighted else 'no correction = "importance"'
        problems.append(f"label {source} has {got}, but others estimate it. hint: only importance without late_share")
    if policy == "fake_negative":
        problems.append(
            f"label {source} has others that estimate it, but its feedback is fake_negative: all positives come late. "
            "hint: leave them out"
        )
    return problems
