"""What a label with a loss or a term over lists needs: its column, and a join that brings a list together."""

from collections.abc import Sequence

from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.streams.events import Events
from pipeline.configuration.streams.feedbacks import Feedback, policies_by_label

_TYPES = ("string", "int", "uint")


def list_loss_problems(
    labels: Sequence[LabelConfig], feedbacks: Sequence[Feedback], events: Events, shards: int
) -> list[str]:
    """What is wrong with the lists of the labels.

    Args:
        labels: as they are declared.
        feedbacks: those of the configuration; each has a policy and labels.
        events: the input events.
        shards: number of shards of the samples.
    """
    policies = policies_by_label(feedbacks)
    columns, problems = events.impressions.columns, []
    for label in labels:
        column = label.list_column
        if column is None:
            continue
        policy, name = policies.get(label.source), f"label {label.name} has list_column {column}"
        if columns.get(column) not in _TYPES:
            got = f"of type {columns[column]}" if column in columns else "a column that impressions lack"
            problems.append(f"{name}, which is {got}. hint: use a column of type {', '.join(_TYPES)}")
        if policy is not None and policy != "close":
            problems.append(
                f"{name}, and the policy of its feedback is {policy}, which takes lists apart. hint: policy = 'close'"
            )
        if shards > 1 and set(events.shard_columns) != {column}:
            problems.append(
                f"{name}, and {', '.join(events.shard_columns)} choose one of {shards} shards, which takes lists "
                f'apart. hint: events.partition_by = ["{column}"]'
            )
    return problems
