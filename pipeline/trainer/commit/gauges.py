"""Metrics and TensorBoard summaries of one shard: its tables as of the last commit, and its commits.

They are computed when a commit is made, never between batches; a scrape reads finished values.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import structlog

from pipeline.arrays.types import Float64s
from pipeline.configuration.project import Project
from pipeline.importance.sample import MAX_ROWS, RowSample, quantiles
from pipeline.model.training.summaries import Summaries
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading
from pipeline.trainer.commit.boundary_snapshot import BoundarySnapshot
from pipeline.trainer.commit.published_totals import PublishedTotals
from pipeline.trainer.tables.filtered_table import FilteredTable, TableCounts
from pipeline.trainer.tables.table import Changes
from pipeline.trainer.tables.tables import Tables
from pipeline.trainer.validation.label_validation import WITHOUT_POSITIVE_HINT, labels_without_positive
from pipeline.versions.state import VersionId

logger = structlog.get_logger(__name__)

_QUANTILES = (0.1, 0.5, 0.9, 0.99)
_DISTRIBUTIONS = {"importance": metrics.IMPORTANCE, "convergence": metrics.CONVERGENCE}
_SCORES = {
    "log_loss": metrics.LOG_LOSS,
    "normalized_entropy": metrics.NORMALIZED_ENTROPY,
    "calibration": metrics.CALIBRATION,
    "loss": metrics.LOSS,
    "rmse": metrics.RMSE,
    "top_share": metrics.TOP_SHARE,
    "hit_rate": metrics.HIT_RATE,
    "recall": metrics.RECALL,
}
"""By their name in a validation report."""


class Gauges:
    """One shard's metrics. Commits call `committed` one after the other; `readings` may be called by any thread."""

    def __init__(self, project: Project, shard: int, tables: Tables) -> None:
        self._project, self._shard = project, shard
        self._committed: tuple[Reading, ...] = ()
        self._distributions: tuple[Reading, ...] = ()
        self.stalled_s = 0.0
        """How long training was stalled for commits, in total."""
        self.serving_loss: dict[str, float] = {}
        """What serving loses relative to the trainer, by kind: predicted, measured."""
        self.published = PublishedTotals()
        config = project.config.telemetry
        self._samples = {name: _sample_of(each) for name, each in tables.by_name.items()} if config.enabled else {}
        folder = project.root / config.tensorboard / f"shard-{shard}" if config.tensorboard else None
        self._summaries = Summaries(folder) if folder else None
        self._summarised_at_s: float | None = None
        self._summarised_samples = 0
        self._unsummarised: BoundarySnapshot | None = None
        self._warned: set[str] = set()

    def committed(
        self, id: VersionId, snapshot: BoundarySnapshot, changes: Mapping[str, Changes], commit_s: float
    ) -> None:
        """`snapshot` has become version `id`, published `commit_s` after its boundary."""
        metrics.COMMIT_SECONDS.labels(str(self._shard)).observe(commit_s)
        for name, sample in self._samples.items():
            sample.apply(changes[name].touched, changes[name].rows, changes[name].removed)
        self._unsummarised = snapshot
        now_s = self._project.clock.monotonic_s()
        every_s = self._project.config.telemetry.every_s
        if self._summarised_at_s is None or now_s - self._summarised_at_s >= every_s:
            self._summarise(snapshot, now_s)
        self._committed = (
            metrics.COMMITTED_GENERATION.reading(id.generation, self._shard),
            metrics.COMMITTED_SEQUENCE.reading(id.sequence, self._shard),
            metrics.COMMITTED_SAMPLES.reading(snapshot.progress.samples_seen, self._shard),
            *self._of_deltas(),
            *self._of_tables(snapshot.tables),
            *self._of_validation(snapshot.validation),
            *self._of_inputs(snapshot),
        )

    def readings(self) -> Iterator[Reading]:
        """Everything, as of the last commit."""
        yield metrics.COMMIT_STALL.reading(self.stalled_s, self._shard)
        yield from self._committed
        yield from self._distributions

    def close(self) -> None:
        """Write the last commit's summaries if they were not due yet."""
        if self._summaries is None:
            return
        if self._unsummarised is not None:
            self._summarise(self._unsummarised, self._project.clock.monotonic_s())
        self._summaries.close()

    def _of_deltas(self) -> Iterator[Reading]:
        for kind, loss in self.serving_loss.items():
            yield metrics.SERVING_LOSS.reading(loss, self._shard, kind)
        for table, rows in self.published.withheld.items():
            yield metrics.WITHHELD_ROWS.reading(rows, self._shard, table)

    def _of_tables(self, tables: Mapping[str, TableCounts]) -> Iterator[Reading]:
        for table, counts in tables.items():
            yield metrics.TABLE_ROWS.reading(counts.rows, self._shard, table)
            yield metrics.TABLE_BYTES.reading(counts.memory_bytes, self._shard, table)
            yield metrics.COLD_ROWS.reading(counts.cold_rows, self._shard, table)
            yield metrics.COLD_READS.reading(counts.cold_reads, self._shard, table)
            yield metrics.PREPARE_MISSES.reading(counts.prepare_misses, self._shard, table)
            yield metrics.ROWS_SWAPPED_OUT.reading(counts.swapped_out, self._shard, table)
            yield metrics.ROWS_ADMITTED.reading(counts.admitted, self._shard, table)
            yield metrics.ROWS_EXPIRED.reading(counts.expired, self._shard, table)

    def _of_inputs(self, snapshot: BoundarySnapshot) -> Iterator[Reading]:
        for name, value in snapshot.importance.items():
            yield metrics.INPUT_IMPORTANCE.reading(value, self._shard, name)
        for table, value in snapshot.table_importance.items():
            yield metrics.TABLE_IMPORTANCE.reading(value, self._shard, table)

    def _of_validation(self, validation: Mapping[str, Any]) -> Iterator[Reading]:
        limit = self._project.config.train.positive_within_samples
        without = set(labels_without_positive(validation, limit))
        for label in sorted(without - self._warned):
            warning = {"label": label, "shard": self._shard, "samples": limit, "hint": WITHOUT_POSITIVE_HINT}
            logger.warning("label without a positive", **warning)
        self._warned |= without
        for label in validation:
            yield metrics.LABEL_WITHOUT_POSITIVE.reading(label in without, self._shard, label)
        for label, window, name, score in _scores(validation):
            yield _SCORES[name].reading(score, self._shard, label, window)

    def _summarise(self, snapshot: BoundarySnapshot, now_s: float) -> None:
        """The distributions of importance and convergence over rows, for Prometheus and TensorBoard."""
        at_s, half_life_s = snapshot.progress.last_at_ms // 1000, self._project.config.train.half_life_s
        values: dict[tuple[str, str], Float64s] = {}
        for table, sample in self._samples.items():
            values["importance", table] = sample.importance(at_s, half_life_s)
            values["convergence", table] = sample.convergence()
        self._distributions = tuple(
            _DISTRIBUTIONS[name].reading(value, self._shard, table, at)
            for (name, table), rows in values.items()
            for at, value in quantiles(rows, _QUANTILES).items()
        )
        if self._summaries is not None:
            histograms = {f"{name}/{table}": rows for (name, table), rows in values.items()}
            self._summaries.write(snapshot.progress.samples_seen, self._scalars(snapshot, now_s), histograms)
        self._summarised_at_s, self._summarised_samples = now_s, snapshot.progress.samples_seen
        self._unsummarised = None

    def _scalars(self, snapshot: BoundarySnapshot, now_s: float) -> dict[str, float]:
        scalars: dict[str, float] = {f"rows/{table}": counts.rows for table, counts in snapshot.tables.items()}
        scalars |= {f"serving_loss/{kind}": loss for kind, loss in self.serving_loss.items()}
        scalars |= self.published.scalars()
        for label, window, name, score in _scores(snapshot.validation):
            scalars[f"{name}/{label}/{window}"] = score
        if self._summarised_at_s is not None and now_s > self._summarised_at_s:
            learned = snapshot.progress.samples_seen - self._summarised_samples
            scalars["samples_per_second"] = learned / (now_s - self._summarised_at_s)
        return scalars


def _sample_of(restored: FilteredTable) -> RowSample:
    """The sample that a restored table begins with."""
    sample = RowSample()
    keys = restored.table.keys(MAX_ROWS + 1)
    sample.apply(keys, restored.statistics(keys), np.empty(0, np.uint64))
    return sample


def _scores(validation: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    """(label, window, name, score) of every score that is defined.

    Windows are all samples and the open hour; of the matured labels, all, the last cohort, and labels as of their ages.
    """
    for label, report in validation.items():
        matured = report["matured"]
        windows = {"all": report["total"], "matured": matured["total"]}
        windows |= {"hour": report["windows"][-1]} if report["windows"] else {}
        windows |= {"matured_last": matured["cohorts"][-1]} if matured["cohorts"] else {}
        windows |= {f"matured_at_{scores['age']}": scores for scores in matured["by_age"]}
        for window, scores in windows.items():
            for name in _SCORES:
                if scores.get(name) is not None:
                    yield label, window, name, scores[name]
