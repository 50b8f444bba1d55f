"""The configuration of recall: which items a replica finds for a user."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.configuration.model.towers import TowersConfig
from pipeline.configuration.section import Fraction, Name, Section, TopicName


class Tree(Section):
    """`[recall.tree]`: the scorer descends a tree of the items instead of scoring those with the largest products.

    It needs `recall.scorer`. The tree is made of balanced clusters of the item vectors, anew for every version; a node
    is scored by the mean of what its items decide. Between two versions new items join the nearest node at once, and
    once a quarter of the items have joined or left, the tree is built anew, also without a new version. On the market
    of the benchmarks the scan finds more in the same time: use it unless your own measurement says otherwise.
    """

    beam: Annotated[int, Field(ge=1, le=100_000)] = 250
    """How many nodes of each layer are descended from, those with the best scores; about `beam` × `fan_out` items are
    scored for a user. Filters leave out items of these nodes: a request may find fewer than it asks for."""
    fan_out: Annotated[int, Field(ge=2, le=1_024)] = 16
    """Nodes below a node, and items below one of the last layer."""
    layers: Annotated[int, Field(ge=1, le=4)] = 2
    """Layers of nodes. All of the first are scored: items / `fan_out`^`layers`, best a few thousand."""


class Recall(Section):
    """`[recall]`: a replica of a model with two towers finds the best items for a user.

    `POST /v1/models/NAME:recall`.
    """

    items: Annotated[str, Field(min_length=1)] | None = None
    """File of the items, relative to the project folder: in each line a JSON object of the impression columns that the
    item tower reads, with a value of `labels.towers.item_column` that no other line has. Replace it by a rename: a
    running replica reads it again. Not needed with `topic`."""
    topic: TopicName | None = None
    """Topic of changes of items: new, changed and removed ones. They apply to the items of the file, or to none without
    one; the last change of an item counts."""
    refresh_s: Annotated[float, Field(ge=0.01, le=86_400)] = 1.0
    """Least time between two computations of all item vectors, each by the newest version, and between two reads of
    `topic`."""
    flip_overlap: Fraction = 1.0
    """All items are embedded by a newer version once it keeps less than this share of the best items, measured for
    users of the last requests on a sample of 8,192 items. A version that keeps more is skipped. 1: every version is
    used. One of another generation, after a rollback, always is."""
    attributes: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    """By name, a condition over the columns of items, as those that narrow a quarantine: `cheap = "price < 5"`.
    Requests find items by them: `"filter": {"all": ["cheap"], "none": ["adult"]}`."""
    max_k: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """The most items that a request may ask for; with `scorer` at most `scored`."""
    scorer: Name | None = None
    """A label without towers that orders the items: the `scored` ones with the largest products are scored by it, and
    the best `k` of these are found. Its network may be any, such as attention over a history; what users and items
    decide of its inputs is looked up once for a request and once for a version. Default: items are ordered by the
    product."""
    item_columns: tuple[str, ...] = ()
    """`scorer`: columns of items that neither the item tower nor `attributes` read. What the scorer reads of other
    columns is the user's or the request's; `labels.towers.item_column` is always the item's."""
    scored: Annotated[int, Field(ge=1, le=100_000)] = 4_000
    """`scorer`: how many items it scores for a user; without effect with `tree`."""
    tree: Tree | None = None

    @model_validator(mode="after")
    def _check_items(self) -> Self:
        if self.items is None and self.topic is None:
            raise ValueError("recall has no items. hint: set recall.items, recall.topic or both")
        if self.tree is not None and self.scorer is None:
            raise ValueError("recall.tree has no scorer. hint: set recall.scorer")
        if self.tree is not None and self.max_k > self.tree.beam * self.tree.fan_out:
            scored = f"tree.beam × tree.fan_out {self.tree.beam * self.tree.fan_out}"
            raise ValueError(f"max_k is {self.max_k}, {scored}. hint: at most as many as are scored")
        if self.scorer is not None and self.tree is None and self.max_k > self.scored:
            raise ValueError(f"max_k is {self.max_k}, scored {self.scored}. hint: at most as many as are scored")
        return self


def recall_problems(
    recall: Recall | None, towers: TowersConfig | None, part: str | None, scorers: Sequence[str], columns: Sequence[str]
) -> list[str]:
    """What is wrong with `[recall]`.

    Args:
        recall: the section; None gives no problems.
        towers: of the model.
        part: that is served.
        scorers: the labels without towers.
        columns: of impressions.
    """
    if recall is None:
        return []
    problems = [] if towers else ['[recall] needs a label with loss = "in_batch". hint: add [labels.towers]']
    if part is not None:
        problems.append(f"[recall] needs both towers, serving.part is {part}. hint: remove either")
    if recall.scorer is not None and recall.scorer not in scorers:
        known = ", ".join(scorers) or "none"
        problems.append(f"recall.scorer is {recall.scorer}, no label without towers. known: {known}")
    if unknown := sorted({*recall.item_columns} - {*columns}):
        problems.append(f"recall.item_columns has {', '.join(unknown)}. known: {', '.join(columns)}")
    if recall.item_columns and recall.scorer is None:
        problems.append("recall.item_columns has no effect without recall.scorer. hint: leave it out")
    return problems
