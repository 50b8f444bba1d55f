"""Embedding rows of a real run: the MIND impressions through the command line, 16 weights per item and per user."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet

from tests.real.command import springtide
from tests.real.test_mind import SOURCE, WINDOW_MS, clicks_of, prepare

_MODEL = '''"""A small network over the rows side by side."""

import keras


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """One hidden layer."""
    hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Concatenate()(list(inputs.values())))
    return keras.Model(inputs, keras.layers.Dense(1)(hidden))
'''


def mind_rows(folder: Path) -> dict[str, np.ndarray]:
    """Field → [n, 16] float32 after one pass over the impressions; empty if they are not on this machine."""
    if not SOURCE.exists():
        print(f"rows of the MIND run are not measured: {SOURCE} does not exist", flush=True)
        return {}
    project = _project(folder)
    springtide(project, "run", "all", "--until-end")
    return {field: _exported(project, field, folder / f"{field}.parquet") for field in ("item", "user")}


def _project(folder: Path) -> Path:
    impressions = pd.read_csv(SOURCE)
    impressions["list_size"] = impressions.groupby("impression_id")["item"].transform("size")
    delays_ms = np.random.default_rng(21).integers(0, WINDOW_MS, int(impressions["click"].sum()))
    project = prepare(folder, impressions, clicks_of(impressions, delays_ms, seed=22))
    settings = (project / "springtide.toml").read_text(encoding="utf-8")
    for field in ("item", "user"):
        narrow = f'columns = ["{field}"]\ndim = 1\ninit_scale = 0\n'
        assert narrow in settings
        settings = settings.replace(narrow, f'columns = ["{field}"]\ndim = 16\n')
    (project / "springtide.toml").write_text(settings, encoding="utf-8")
    (project / "model.py").write_text(_MODEL, encoding="utf-8")
    return project


def _exported(project: Path, field: str, path: Path) -> np.ndarray:
    springtide(project, "export", "rows", field, "--out", str(path))
    weights = parquet.read_table(path)["weights"].combine_chunks()
    return np.ascontiguousarray(weights.flatten().to_numpy().reshape(len(weights), -1), np.float32)
