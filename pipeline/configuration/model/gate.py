"""The configuration of the gate: when what a shard learns counts as healthy."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.section import Section
from pipeline.configuration.streams.events import Policy

_SOURCE_TYPES = ("string", "int", "uint", "bool")

Samples = Annotated[int, Field(ge=1_000, le=1 << 40)]


class GateConfig(Section):
    """`[gate]`: tests of new samples before they are learned from. The state of a shard is healthy, uncertain (realtime
    deltas send nothing; incrementals and fulls go on after a check) or corrupted. Without this section nothing is
    tested.

    With `policy = "wait"`, positives precede the negatives of the same hour: a rise of traffic within a window looks
    like more positives. `tolerance` and `total_tolerance` should be above the logarithm of that rise.
    """

    label: str | None = None
    """The logistic label that is tested; default: the first. Its policy is `wait` or `close`."""
    source: str | None = None
    """Column of impressions by which calibration is tested, such as a campaign or an app version; default: all samples
    together."""
    buckets: Annotated[int, Field(ge=1, le=4_096)] = 128
    """Its values are divided into so many groups by their hash."""
    false_alarm_every_samples: Annotated[float, Field(ge=1e4, le=1e15)] = 1e8
    """Mean number of samples before a false alarm, at least."""
    tolerance: Annotated[float, Field(gt=0, le=2)] = 0.2
    """Change of a source's log-odds that is normal; 0.2 is about 20 % more or fewer positives than predicted."""
    total_tolerance: Annotated[float, Field(gt=0, le=2)] = 0.1
    """The same of all sources together."""
    gain_tolerance: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the gain over the baseline that may be lost."""
    warm_up_samples: Samples = 100_000
    """Samples of the past before anything is tested."""
    lag_samples: Samples = 50_000
    """The past leaves out at least so many of the newest samples."""
    memory_samples: Samples = 500_000
    """The past forgets with this time constant: what lasts longer is normal."""
    recover_samples: Samples = 50_000
    """Samples without half of the evidence of an alarm after which the state is healthy again."""
    on_corrupted: Literal["hold", "rollback"] | None = None
    """`hold`: incrementals and scheduled fulls send nothing either while the state is corrupted; a full on command
    does. `rollback`: the same until the trainer has rolled back to its last version without evidence; the samples
    learned since are quarantined. Default: they go on after a check."""
    rollbacks_per_day: Annotated[int, Field(ge=1, le=1_000)] = 3
    """With `rollback`: most rollbacks within a day of the log's time; then the state is held as with `hold`."""

    @property
    def groups(self) -> int:
        """Groups of samples whose calibration is tested apart."""
        return 1 if self.source is None else self.buckets


def gated_label(gate: GateConfig, outputs: Sequence[LabelConfig]) -> int | None:
    """The place of the label that is tested among the outputs; None if there is none."""
    names = _testable(outputs)
    name = gate.label or (names[0] if names else None)
    return next((i for i, label in enumerate(outputs) if label.name == name and name in names), None)


def _testable(outputs: Sequence[LabelConfig]) -> list[str]:
    return [label.name for label in outputs if label.logistic and label.estimates is None]


def gate_problems(
    gate: GateConfig | None,
    outputs: Sequence[LabelConfig],
    columns: Mapping[str, str],
    policies: Mapping[str, Policy],
) -> list[str]:
    """What is wrong with `[gate]`.

    Args:
        gate: its settings.
        outputs: the labels, in the order of the outputs.
        columns: of impressions, by name their type.
        policies: by label, the policy of its feedback.
    """
    if gate is None:
        return []
    problems, number = [], gated_label(gate, outputs)
    if number is None:
        known = _testable(outputs)
        hint = f"name one of them: {', '.join(known)}" if known else "add a logistic label, or leave [gate] out"
        problems.append(f"gate.label is {gate.label or 'not set'}, wanted a logistic label. hint: {hint}")
    elif policies.get(outputs[number].source) == "fake_negative":
        problems.append(
            f"gate.label {outputs[number].name} has policy fake_negative, whose positives are compensations: they are "
            "not tested. hint: policy = 'wait' or 'close'"
        )
    if gate.source is not None and columns.get(gate.source) not in _SOURCE_TYPES:
        found = columns.get(gate.source, "no column of impressions")
        problems.append(f"gate.source {gate.source} is {found}, wanted a column of type {', '.join(_SOURCE_TYPES)}")
    if gate.memory_samples < gate.lag_samples:
        problems.append(f"gate.memory_samples is {gate.memory_samples}, wanted at least {gate.lag_samples}")
    return problems
