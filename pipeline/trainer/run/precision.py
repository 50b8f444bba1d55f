"""The precision of rows at versions, and a search over prices of a byte on the newest samples. Read-only."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Float32s, Float64s
from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.model.tables import TableConfig, tables_of
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.logs.interface.log import Log
from pipeline.publish.precision.rounded_table import RoundedTable, at_price
from pipeline.publish.precision.scores import calibration_by_decile, divergence, entropy, ks_distance, sigmoid
from pipeline.publish.precision.tables import PriceAtVersion, TablePrecision, table_precision
from pipeline.publish.price.byte_price import Price
from pipeline.trainer.commit.boundary_snapshot import LOSS
from pipeline.trainer.run.evaluation import Evaluation, SamplesByRows
from pipeline.trainer.tables.table import stored_rows
from pipeline.trainer.validation.loss_sum import LossSum
from pipeline.versions.deltas.delta import decode_delta, served_dense_of
from pipeline.versions.deltas.delta_sizes import coded_bytes
from pipeline.versions.deltas.rounding import RowRounding
from pipeline.versions.deltas.served_view import ServedView
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store.version_store import VersionStore

FACTORS = tuple(4.0**exponent for exponent in range(-4, 5))
"""Prices of the search, relative to that of the version."""


@dataclass(frozen=True)
class PricePoint:
    """All rows at one price, on n samples of all shards. Dense weights are those of the trainer.

    Attributes:
        factor: the price, relative to that of the version.
        rows: by bits per weight; 0: not worth its bytes.
        rows_bytes: of the other rows, coded, with keys and handles.
        dense_bytes: of the dense weights that serving holds.
        loss_rise: of the mean loss of all labels, relative to the trainer's; it has the noise of labels.
        divergence: of the predictions of one label, relative to the trainer's loss if its predictions are right, which
            has not; None if its loss is not logistic.
        ks_distance: of the distributions of its scores; None without a label.
        calibration: mean probability over the trainer's, by decile of the trainer's; none as `divergence`.
    """

    factor: float
    rows: dict[int, int]
    rows_bytes: int
    dense_bytes: int
    loss_rise: float
    divergence: float | None
    ks_distance: float | None
    calibration: list[float]

    @property
    def size_bytes(self) -> int:
        """Of a snapshot."""
        return self.rows_bytes + self.dense_bytes


@dataclass(frozen=True)
class PriceSearch:
    """The points of a search, the lowest price first.

    Attributes:
        samples: number of them, over all shards.
        learned: how many of them the versions have learned from.
        loss: their mean under the trainer's rows.
        label: that of the scores, if any.
    """

    samples: int
    learned: int
    loss: float
    label: str | None
    points: tuple[PricePoint, ...]


def price_at(project: Project, commit: Commit) -> PriceAtVersion:
    """What decides precision at a version. Raises InputError if it has no price yet."""
    half_life_s, at_s = project.config.train.half_life_s, commit.last_at_ms // 1000
    loss = LossSum.of_bytes(commit.training_state.get(LOSS, LossSum().to_bytes())).at(at_s, half_life_s)
    price = Price.of(commit.price)
    if not (loss > 0 and price.for_steps > 0):
        raise InputError(
            f"version {commit.id} has the price {price.for_steps:g} and the loss {loss:g}, wanted both above 0. "
            "hint: learn more samples, springtide run train --until-end"
        )
    return PriceAtVersion(price, at_s, half_life_s, loss)


def precision_of_tables(project: Project, commit: Commit, at: PriceAtVersion) -> dict[str, TablePrecision]:
    """By table of a version, `at` its price."""
    delta, found = decode_delta(commit.delta), {}
    for name, table in _tables_in(project, commit).items():
        change = commit.fields[name]
        sent = delta.fields[name]
        size = len(sent), coded_bytes(sent)
        found[name] = table_precision(
            change.keys, stored_rows(change.rows, table), ServedView.of(change), RowRounding.of(table), at, size
        )
    return found


def search_prices(
    project: Project,
    log: Log,
    ids: Sequence[VersionId],
    count: int,
    advance: Callable[[], None],
    label: str | None = None,
) -> PriceSearch:
    """Score the newest samples of the shards of some versions, at most `count` of each, by rows at every price.

    `label`: whose scores are compared; by default the first with a logistic loss, if there is one.

    Raises as `Evaluation.by_rows`, and InputError for an unknown label or a version without a price.
    """
    scored = _label_of(project, label)
    with closing(VersionStore(project, log)) as versions:
        evaluation = Evaluation(project, log, versions)
        shards = [_ShardScores.of(project, evaluation.by_rows(id, count), scored, advance) for id in ids]
    own = np.concatenate([shard.own.losses for shard in shards])
    points = tuple(_point(place, scored, shards) for place in range(len(FACTORS)))
    name = scored.name if scored else None
    return PriceSearch(len(own), sum(shard.learned for shard in shards), float(own.mean()), name, points)


def _label_of(project: Project, name: str | None) -> LabelConfig | None:
    labels = project.config.outputs
    found = [label for label in labels if (label.logistic if name is None else label.name == name)]
    if name is not None and not found:
        known = ", ".join(label.name for label in labels)
        raise InputError(f"label {name} does not exist. known: {known}. hint: --label {labels[0].name}")
    return found[0] if found else None


@dataclass(frozen=True)
class _Scores:
    """Losses [n] of all labels and outputs [n] of one, none without it."""

    losses: Float64s
    outputs: Float64s


@dataclass(frozen=True)
class _AtPrice:
    """Of one shard: rows by bits, bytes of these rows, scores."""

    rows: dict[int, int]
    size_bytes: int
    scores: _Scores


@dataclass(frozen=True)
class _ShardScores:
    """Of one shard: by the trainer's rows, and by those at each price."""

    learned: int
    dense_bytes: int
    own: _Scores
    served: list[_AtPrice]

    @classmethod
    def of(
        cls, project: Project, samples: SamplesByRows, label: LabelConfig | None, advance: Callable[[], None]
    ) -> "_ShardScores":
        commit = samples.commit
        at, tables = price_at(project, commit), _tables_in(project, commit)
        own, served = _scores(project, samples, label, samples.trained), []
        rows = {name: stored_rows(commit.fields[name].rows, table) for name, table in tables.items()}
        for factor in FACTORS:
            rounded = {
                name: RoundedTable.of(commit.fields[name].keys, rows[name], RowRounding.of(table), at_price(at, factor))
                for name, table in tables.items()
            }
            scores = _scores(project, samples, label, {name: table.weights for name, table in rounded.items()})
            size = sum(table.size_bytes for table in rounded.values())
            served.append(_AtPrice(_added([table.rows for table in rounded.values()]), size, scores))
            advance()
        return cls(samples.learned, len(served_dense_of(commit)), own, served)


def _point(place: int, label: LabelConfig | None, shards: Sequence[_ShardScores]) -> PricePoint:
    served = [shard.served[place] for shard in shards]
    own_losses = np.concatenate([shard.own.losses for shard in shards])
    losses = np.concatenate([each.scores.losses for each in served])
    own = np.concatenate([shard.own.outputs for shard in shards])
    outputs = np.concatenate([each.scores.outputs for each in served])
    logistic = label is not None and label.logistic
    scores = (sigmoid(own), sigmoid(outputs)) if logistic else (own, outputs)
    return PricePoint(
        factor=FACTORS[place],
        rows=_added([each.rows for each in served]),
        rows_bytes=sum(each.size_bytes for each in served),
        dense_bytes=sum(shard.dense_bytes for shard in shards),
        loss_rise=float(losses.sum() / own_losses.sum()) - 1,
        divergence=float(divergence(own, outputs).sum() / entropy(own).sum()) if logistic else None,
        ks_distance=ks_distance(*scores) if label else None,
        calibration=calibration_by_decile(*scores) if logistic else [],
    )


def _scores(
    project: Project, samples: SamplesByRows, label: LabelConfig | None, rows: Mapping[str, Float32s]
) -> _Scores:
    losses, outputs = samples.score(rows)
    if label is None:
        return _Scores(losses, np.empty(0))
    return _Scores(losses, outputs[:, project.config.output_names.index(label.name)].astype(np.float64))


def _tables_in(project: Project, commit: Commit) -> dict[str, TableConfig]:
    """The declared tables that the version holds."""
    return {name: table for name, table in tables_of(project.config.fields).items() if name in commit.fields}


def _added(counts: Sequence[dict[int, int]]) -> dict[int, int]:
    return {bits: sum(each[bits] for each in counts) for bits in counts[0]}
