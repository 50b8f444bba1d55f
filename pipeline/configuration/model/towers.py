"""The two towers of a label: which outputs of the model they are, and the items among which its softmax chooses."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from pipeline.configuration.section import Count, Fraction, Name, Section, Setting, declared_twice

if TYPE_CHECKING:
    from pipeline.configuration.model.labels import LabelConfig

_TYPES = ("string", "int", "uint")


class TowersConfig(Section):
    """`[labels.towers]`: of a label with `loss = "in_batch"`. The model returns two vectors [batch, dim] by
    name in place of the label: `output.query · output.item / temperature` is the label's output. Each positive is
    classified among the items of its batch by a softmax: Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for
    Large Corpus Item Recommendations" (RecSys). Positives that come late are learned like the others.
    """

    query: Name = "user"
    """Name of the model's output for the user or request; serving returns it, also as a label of `[[parts]]`."""
    item: Name = "item"
    """Name of the model's output for the item, likewise."""
    item_column: Annotated[str, Field(min_length=1)]
    """Impression column with the item's id: samples with equal values are no negatives for each other."""
    temperature: Setting = 1.0
    """Divisor of the dot product; 0.05 to 0.2 are common with `normalise`."""
    normalise: bool = False
    """Divide both vectors by their Euclidean length, in training and serving."""
    log_q: bool = True
    """Subtract from each output the logarithm of how often its item is expected among the negatives, from a streaming
    estimate of the distance between its occurrences (Yi et al., algorithm 3). Without it popular items score too
    low."""
    frequency_rate: Fraction = 0.01
    """`log_q`: weight of the newest distance in the estimate, α there; the first 1/α distances count alike."""
    frequency_buckets: Annotated[int, Field(ge=1, le=1 << 24)] = 65_536
    """`log_q`: size of each of the two hash tables of the estimate, 20 bytes each. Items that share a bucket in both
    look more frequent than they are."""

    negatives: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    """Further items that each batch draws, uniformly, from a reservoir of recent ones: they are negatives of all its
    positives: Yang et al. 2020, "Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations". An
    item counts as seen when it is drawn, but not for admission. `"off"`: the items of the batch alone."""
    reservoir: Annotated[int, Field(ge=1, le=1 << 24)] = 10_000
    """`negatives`: how many different items the reservoir holds, with the inputs of the item tower as their newest
    sample had them; a new one then replaces a random one."""
    recall_at: Count = 10
    """The metric `recall` is the share of positives whose item is among the first so many, of those of the batch and
    those drawn for it."""

    @property
    def drawn(self) -> int:
        """Items that each batch draws from the reservoir."""
        return self.negatives or 0

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        unread = [n for n in ("frequency_rate", "frequency_buckets") if n in self.model_fields_set and not self.log_q]
        problems = [f"towers.{name} has no effect without log_q. hint: leave it out" for name in unread]
        if self.negatives is None and "reservoir" in self.model_fields_set:
            problems.append("towers.reservoir has no effect without negatives. hint: leave it out")
        if self.reservoir < self.drawn:
            problems.append(
                f"towers.negatives is {self.drawn}, the reservoir has {self.reservoir} items. hint: a larger one"
            )
        if self.query == self.item:
            problems.append(f"towers.query and towers.item are both {self.item}. hint: a name for each")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def towers_of(labels: Sequence["LabelConfig"]) -> TowersConfig | None:
    """The towers of the label that has some."""
    return next((label.towers for label in labels if label.towers is not None), None)


def vector_names(labels: Sequence["LabelConfig"]) -> tuple[str, ...]:
    """The outputs of the model that are vectors.

    >>> vector_names([])
    ()
    """
    towers = towers_of(labels)
    return () if towers is None else (towers.query, towers.item)


def tower_problems(labels: Sequence["LabelConfig"], served: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """What is wrong with the towers of the labels together.

    Args:
        labels: as they are declared.
        served: names of predictions apart from vectors.
        columns: type by impression column.
    """
    having, problems = [label for label in labels if label.towers is not None], []
    if len(having) > 1:
        names = " and ".join(label.name for label in having)
        problems.append(f"labels {names} have loss in_batch, wanted one. hint: a column with a value for both")
    for label in having:
        assert label.towers is not None
        column = label.towers.item_column
        if columns.get(column) not in _TYPES:
            got = f"of type {columns[column]}" if column in columns else "a column that impressions lack"
            problems.append(
                f"label {label.name} has towers.item_column {column}, which is {got}. "
                f"hint: use a column of type {', '.join(_TYPES)}"
            )
    return problems + declared_twice("output", [*served, *vector_names(labels)])
