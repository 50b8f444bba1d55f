"""What an operator sees of one shard: how its tables stand as of its newest commit, and how its commits go.

Looked at when a commit is made, never between batches, and handed to whoever asks as finished readings.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.configuration.project import Project
from pipeline.importance.sample import MOST, RowSample, quantiles
from pipeline.model.summaries import Summaries
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading
from pipeline.trainer.commit.checkpoint import BoundarySnapshot
from pipeline.trainer.tables.table import Changes, Table
from pipeline.trainer.tables.tables import Tables
from pipeline.versions.state import VersionId

_QUANTILES = (0.1, 0.5, 0.9, 0.99)
_SCORES = {
    "log_loss": metrics.LOG_LOSS,
    "normalized_entropy": metrics.NORMALIZED_ENTROPY,
    "calibration": metrics.CALIBRATION,
}
"""By their name in a validation report."""


@dataclass(frozen=True)
class _Counts:
    """One table at a batch boundary."""

    rows: int
    memory_bytes: int
    admitted: int
    expired: int


class Gauges:
    """One shard's. Training calls `at_boundary`, the commit that follows `committed`; `readings` is anybody's."""

    def __init__(self, project: Project, shard: int, tables: Tables) -> None:
        self._project, self._shard, self._tables = project, shard, tables.fields
        self._rows_before = {name: len(field.table) for name, field in tables.fields.items()}
        self._counts: dict[str, _Counts] = {}
        self._shown: tuple[Reading, ...] = ()
        self._spread: tuple[Reading, ...] = ()
        self.stalled_s = 0.0
        config = project.config.telemetry
        self._samples = (
            {name: _sample_of(field.table) for name, field in tables.fields.items()} if config.enabled else {}
        )
        folder = project.root / config.tensorboard / f"shard-{shard}" if config.tensorboard else None
        self._summaries = Summaries(folder) if folder else None
        self._looked_at_s: float | None = None
        self._looked_samples = 0
        self._unseen: BoundarySnapshot | None = None

    def at_boundary(self) -> None:
        """Count the tables, while nobody changes them."""
        self._counts = {
            name: _Counts(
                rows := len(field.table),
                field.table.memory_bytes,
                rows + field.expired - self._rows_before[name],
                field.expired,
            )
            for name, field in self._tables.items()
        }

    def committed(
        self, id: VersionId, snapshot: BoundarySnapshot, changes: Mapping[str, Changes], took_s: float
    ) -> None:
        """The boundary counted last has become version `id`, published `took_s` after it."""
        metrics.COMMIT_SECONDS.labels(str(self._shard)).observe(took_s)
        for name, sample in self._samples.items():
            sample.apply(changes[name].touched, changes[name].rows, changes[name].removed)
        self._unseen = snapshot
        now_s = self._project.clock.monotonic_s()
        if self._looked_at_s is None or now_s - self._looked_at_s >= self._project.config.telemetry.every_s:
            self._look(snapshot, now_s)
        shown = [
            metrics.COMMITTED_GENERATION.reading(id.generation, self._shard),
            metrics.COMMITTED_SEQUENCE.reading(id.sequence, self._shard),
            metrics.COMMITTED_SAMPLES.reading(snapshot.progress.samples_seen, self._shard),
        ]
        self._shown = (*shown, *self._of_tables(), *self._of_validation(snapshot.validation))

    def readings(self) -> Iterator[Reading]:
        """Everything, as of the newest commit."""
        yield metrics.COMMIT_STALL.reading(self.stalled_s, self._shard)
        yield from self._shown
        yield from self._spread

    def close(self) -> None:
        """Write the newest commit's summaries where they were not due yet."""
        if self._summaries is None:
            return
        if self._unseen is not None:
            self._look(self._unseen, self._project.clock.monotonic_s())
        self._summaries.close()

    def _of_tables(self) -> Iterator[Reading]:
        for field, counts in self._counts.items():
            yield metrics.TABLE_ROWS.reading(counts.rows, self._shard, field)
            yield metrics.TABLE_BYTES.reading(counts.memory_bytes, self._shard, field)
            yield metrics.ROWS_ADMITTED.reading(counts.admitted, self._shard, field)
            yield metrics.ROWS_EXPIRED.reading(counts.expired, self._shard, field)

    def _of_validation(self, validation: Mapping[str, Any]) -> Iterator[Reading]:
        for label, report in validation.items():
            for window, scores in _windows(report).items():
                for name, shown in _SCORES.items():
                    if scores[name] is not None:
                        yield shown.reading(scores[name], self._shard, label, window)

    def _look(self, snapshot: BoundarySnapshot, now_s: float) -> None:
        """How importance and convergence are spread, for Prometheus and TensorBoard."""
        at_s, half_life_s = snapshot.progress.last_at_ms // 1000, self._project.config.train.half_life_s
        spread = {
            metrics.IMPORTANCE: {n: sample.importance(at_s, half_life_s) for n, sample in self._samples.items()},
            metrics.CONVERGENCE: {n: sample.convergence() for n, sample in self._samples.items()},
        }
        self._spread = tuple(
            shown.reading(value, self._shard, field, at)
            for shown, fields in spread.items()
            for field, values in fields.items()
            for at, value in quantiles(values, _QUANTILES).items()
        )
        if self._summaries is not None:
            names = {metrics.IMPORTANCE: "importance", metrics.CONVERGENCE: "convergence"}
            histograms = {f"{names[s]}/{field}": v for s, fields in spread.items() for field, v in fields.items()}
            self._summaries.write(snapshot.progress.samples_seen, self._scalars(snapshot, now_s), histograms)
        self._looked_at_s, self._looked_samples, self._unseen = now_s, snapshot.progress.samples_seen, None

    def _scalars(self, snapshot: BoundarySnapshot, now_s: float) -> dict[str, float]:
        found: dict[str, float] = {f"rows/{field}": counts.rows for field, counts in self._counts.items()}
        for label, report in snapshot.validation.items():
            for window, scores in _windows(report).items():
                named = {f"{name}/{label}/{window}": scores[name] for name in _SCORES}
                found |= {name: value for name, value in named.items() if value is not None}
        if self._looked_at_s is not None and now_s > self._looked_at_s:
            learned = snapshot.progress.samples_seen - self._looked_samples
            found["samples_per_second"] = learned / (now_s - self._looked_at_s)
        return found


def _sample_of(table: Table) -> RowSample:
    """The sample that a restored table begins with."""
    sample = RowSample()
    keys = table.keys()[: MOST + 1]
    sample.apply(keys, table.statistics(keys), np.empty(0, np.uint64))
    return sample


def _windows(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Scores over everything, and over the log's hour that is open."""
    open_one = {"hour": report["windows"][-1]} if report["windows"] else {}
    return {"all": report["total"], **open_one}
