"""Looked-up rows: what sharing tables and reading a history cost, per row, beside a table for each field.

Trainers of the same dim 16, MLP 256-128 and batch 2,048, deterministic, with importance, convergence, progressive
validation and a commit every second, learn in turn in one process:

    own tables      26 fields, a table each: the model of `trainer`
    shared tables   the same fields, sharing 5 tables
    history         an item and a history of 50 in one table, as a sequence: attention, then the MLP
    half full       the same, with 0 to 50 items a sample

A sample looks up a row for each key. Processor time counts, in pairs, because other load on the machine takes its share
of wall time; TFRA and PyTorch learn the same models in processes of their own.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.configuration.project import Project
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks import peers
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.load.histories import LENGTH, append_histories, history_project
from tests.benchmarks.load.stream import append_samples, stream_project

_FIELDS, _TABLES, _PER_SECOND = 26, 5, 50_000
_PAIRS, _WARM_UP = 12, 2
"""Passes over the trainers that count, and those before them, in which networks are compiled."""
_ROWS_A_PASS = 850_000
_PEERS = (("TFRA", peers.TFRA, "tfra_trainer"), ("PyTorch's sparse rows", peers.TORCH, "torch_sparse_trainer"))


def measure(folder: Path, quick: bool) -> list[Figure]:
    fields, pairs = (4, 1) if quick else (_FIELDS, _PAIRS)
    shapes = {
        "own tables": _Shape.of_fields(stream_project(folder / "own", fields), quick),
        "shared tables": _Shape.of_fields(stream_project(folder / "shared", fields, tables=_TABLES), quick),
        "history": _Shape.of_histories(history_project(folder / "history"), quick, LENGTH),
        "half full": _Shape.of_histories(history_project(folder / "half"), quick, 0),
    }
    try:
        rates = _rates(shapes, pairs)
    finally:
        for shape in shapes.values():
            shape.close()
    own = rates.pop("own tables")
    figures = [Figure("looked-up rows, own tables", float(np.median(own)), "rows/core-s", shapes["own tables"].sizes())]
    for name, found in rates.items():
        low, middle, high = np.percentile(found / own, (5, 50, 95))
        sizes = {"5 to 95 % of pairs": f"{low:.2f} to {high:.2f}", "rows/core-s": float(np.median(found))}
        least = None if name == "half full" else 0.9
        figures.append(Figure(f"looked-up rows, {name}, times own tables", middle, "x", sizes, least=least))
    return figures if quick else [*figures, *_beside_peers({"own tables": own} | rates)]


@dataclass
class _Shape:
    """A trainer over a samples log that is full already, `count` records of it a pass."""

    trainer: TrainerShard
    log: Log
    count: int
    rows_a_sample: float
    learned: int = 0

    @classmethod
    def of_fields(cls, project: Project, quick: bool) -> "_Shape":
        fields = len(project.config.fields)
        return cls._filled(project, quick, fields, lambda log, rows: append_samples(project, log, 1, rows, _PER_SECOND))

    @classmethod
    def of_histories(cls, project: Project, quick: bool, least: int) -> "_Shape":
        def append(log: Log, rows: int) -> None:
            append_histories(project, log, 1, rows, _PER_SECOND, least)

        return cls._filled(project, quick, 1 + (least + LENGTH) / 2, append)

    @classmethod
    def _filled(
        cls, project: Project, quick: bool, rows_a_sample: float, append: Callable[[Log, int], None]
    ) -> "_Shape":
        log, passes = open_log(project), 2 if quick else _WARM_UP + _PAIRS
        samples = passes * (8_192 if quick else int(_ROWS_A_PASS / rows_a_sample))
        append(log, samples)
        count = log.end_offset(project.config.topics.samples, 0) // passes
        return cls(TrainerShard(project, log, VersionStore(project), 0), log, count, rows_a_sample)

    def core_s_a_row(self) -> float:
        """Processor time of the next pass over the number of its rows, commits included."""
        before, started = self.trainer.samples, time.process_time()
        self.learned += self.count
        self.trainer.train(self.learned, threading.Event())
        spent = time.process_time() - started
        return spent / ((self.trainer.samples - before) * self.rows_a_sample)

    def sizes(self) -> dict[str, int | float]:
        rows = sum(len(each.table) for each in self.trainer.tables.by_name.values())
        return {"samples": self.trainer.samples, "rows a sample": self.rows_a_sample, "rows at the end": rows}

    def close(self) -> None:
        self.trainer.close()
        self.log.close()


def _rates(shapes: dict[str, _Shape], pairs: int) -> dict[str, np.ndarray]:
    """By name, [pairs] rows per core-second; the order of the trainers alternates."""
    for shape in shapes.values():
        for _ in range(1 if pairs == 1 else _WARM_UP):
            shape.core_s_a_row()
    found: dict[str, list[float]] = {name: [] for name in shapes}
    for number in range(pairs):
        names: Sequence[str] = list(shapes) if number % 2 else list(reversed(shapes))
        for name in names:
            found[name].append(1 / shapes[name].core_s_a_row())
    return {name: np.array(each) for name, each in found.items()}


def _beside_peers(rates: dict[str, np.ndarray]) -> list[Figure]:
    """The same models in other libraries, if installed: rows in memory, nothing durable."""
    figures = []
    options: dict[str, dict[str, int]] = {
        "own tables": {},
        "shared tables": {"tables": _TABLES},
        "history": {"history": LENGTH},
    }
    for label, peer, script in _PEERS:
        for name, chosen in options.items():
            if measured := peers.run(peer, script, **chosen):
                theirs = measured["rows_per_core_s"]
                ratio = float(np.median(rates[name])) / theirs
                figures.append(Figure(f"looked-up rows, {name}, times {label}", ratio, "x", {"theirs": theirs}))
    return figures
