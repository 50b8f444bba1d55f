"""A conversion head added to a click model: what a step costs, and what the click's NE pays.

26 fields × dim 16, MLP 256-128, batch 2,048; a purchase after one click in five, decided by two of the fields. Trainers
of one head, of two, and of two where the second one's gradient stops at the shared layers, learn the same samples in
turns; processor time is compared in pairs. The rows of a head without `stop_gradient` serve both labels, so the click's
NE moves; with it, what the click learns is what it learns alone.
"""

import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.process.clock import SystemClock
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.load.stream import RECORD_ROWS, START_MS, field_names, zipf
from tests.support.world.in_memory_trainer import InMemoryTrainer

MODEL = """
import keras
from keras import layers

def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    for units in (256, 128):
        x = layers.Dense(units, activation="relu")(x)
    outputs = {"click": layers.Dense(1)(x)}
    if HEAD:
        outputs["purchase"] = layers.Dense(1)(keras.ops.stop_gradient(x) if HEAD == "stopped" else x)
    return keras.Model(inputs, outputs)
"""
ONE, SHARED, STOPPED = None, "shared", "stopped"
_HEADS = (ONE, SHARED, STOPPED)


def measure(folder: Path, quick: bool) -> list[Figure]:
    fields, rows, turns = (4, 2_048, 3) if quick else (26, 8_192, 60)
    trainers = {head: _trainer(folder / str(head), head, fields) for head in _HEADS}
    spent: dict[str | None, list[float]] = {head: [] for head in _HEADS}
    for turn in range(turns + 1):  # the first one builds the networks
        samples = _samples(turn, rows, fields)
        for head in _HEADS if turn % 2 else reversed(_HEADS):
            started = time.process_time()
            trainers[head].learn(samples)
            spent[head].append(time.process_time() - started)
            trainers[head].inputs.clear()
    ne = {head: t.progress.validation()["click"]["total"]["normalized_entropy"] for head, t in trainers.items()}
    return [figure for head in (STOPPED, SHARED) for figure in _figures(head, spent, ne, rows)]


def _figures(head: str, spent: dict[str | None, list[float]], ne: dict[str | None, float], rows: int) -> list[Figure]:
    ratios = [two / one for two, one in zip(spent[head][1:], spent[ONE][1:], strict=True)]
    low, high = np.quantile(ratios, [0.25, 0.75]).tolist()
    sizes: dict[str, Any] = {"samples a turn": rows, "turns": len(ratios), "lower quartile %": 100 * (low - 1)}
    sizes |= {"upper quartile %": 100 * (high - 1), "cpu ms a turn of one head": 1000 * median(spent[ONE][1:])}
    moved = {"NE of one head": ne[ONE], "of two": ne[head]}
    least = 0.02 if head == STOPPED else None
    return [
        Figure(f"a second head, {head}: processor time of a step", 100 * (median(ratios) - 1), "%", sizes, most=5.0),
        Figure(f"a second head, {head}: NE of the first", 100 * abs(ne[head] / ne[ONE] - 1), "%", moved, most=least),
    ]


def _trainer(folder: Path, head: str | None, fields: int) -> InMemoryTrainer:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL.replace("HEAD", repr(head)))
    names = field_names(fields)
    labels = [{"name": "click"}, {"name": "purchase", "column": "bought"}]
    document = {
        "events": {
            "key": ["id"],
            "impressions": {"columns": {"id": "int"} | dict.fromkeys(names, "int")},
            "clicks": {"columns": {"id": "int", "bought": "float"}},
        },
        "labels": labels if head else labels[:1],
        "fields": [{"name": name, "columns": [name], "dim": 16} for name in names],
        "model": {"batch_size": 2_048},
    }
    return InMemoryTrainer(Project(folder, parse_config(document), SystemClock()), record_rows=RECORD_ROWS)


def _samples(turn: int, rows: int, fields: int) -> pa.RecordBatch:
    random, ids = np.random.default_rng([1, turn]), turn * rows + np.arange(rows)
    values = [zipf(random, rows) for _ in range(fields)]
    clicked = random.random(rows) < 1 / (1 + np.exp(3.0 - sum((each % 5) * 0.3 for each in values[:3])))
    bought = clicked & (random.random(rows) < 1 / (1 + np.exp(2.5 - sum((each % 3) * 0.5 for each in values[1:3]))))
    at_ms, ones, zeros = START_MS + ids * 10, np.ones(rows, np.float32), np.zeros(rows, np.int32)
    columns = {name: pa.array(column) for name, column in zip(field_names(fields), values, strict=True)}
    columns |= {
        "id": pa.array(ids),
        "impression_at": pa.array(at_ms),
        "click_at": pa.array(at_ms, mask=~clicked),
        "click": pa.array(clicked.astype(np.float32)),
        "purchase": pa.array(bought.astype(np.float32)),
        "weight": pa.array(ones),
        "rate": pa.array(ones),
        "kind": pa.array(np.where(clicked, "positive", "negative")),
        "negative_written": pa.array(~clicked),
    }
    for source in ("impression", "click"):
        columns |= {f"{source}_partition": pa.array(zeros), f"{source}_row": pa.array(zeros)}
        columns[f"{source}_offset"] = pa.array(ids)
    return pa.RecordBatch.from_pydict(columns)
