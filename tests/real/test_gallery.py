"""Every model of `springtide init --model` on real impressions: one pass, each sample scored before it is learned.

The MIND lists have a user, items and positions. A history holds the items that the user clicked in earlier lists; most
users occur once, so it is short. A second label, which a model of two labels has, is observed by no sample.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.cli.commands.jobs.create import GalleryModel
from pipeline.configuration.project import Project
from tests.real.criteo.one_pass import SOURCE as CRITEO
from tests.real.mind_peers import SOURCE
from tests.support.command.command_line import call
from tests.support.reference.ranking import area_under_curve
from tests.support.world.in_memory_trainer import InMemoryTrainer

ROWS, CRITEO_ROWS = 60_000, 30_000
POSITION = (("partition", 0, pa.int32()), ("offset", 1, pa.int64()), ("row", 0, pa.int32()))


def mind_rows() -> pd.DataFrame:
    """News impressions in time order."""
    rows = pd.read_csv(SOURCE, nrows=ROWS)
    rows["id"] = rows["impression_id"].astype(str) + "-" + rows["item"]
    rows["history"] = pd.Series(histories(rows))
    return rows.rename(columns={"pos": "position"})


def criteo_rows() -> pd.DataFrame:
    """Advertising impressions in the order of their file; two columns make the user, two the item, one the position."""
    rows = pd.read_parquet(CRITEO / "small_train.parquet").sort_index()[:CRITEO_ROWS].astype(str)
    number = np.arange(len(rows))
    return pd.DataFrame(
        {
            "id": number.astype(str),
            "ts": 1_500_000_000 + number,
            "user": (rows["cat1"] + "-" + rows["cat4"]).to_numpy(),
            "item": (rows["cat6"] + "-" + rows["cat9"]).to_numpy(),
            "position": rows["cat8"].astype("int64").to_numpy(),
            "history": [[] for _ in number],
            "click": rows["click"].astype("int64").to_numpy(),
        }
    )


def samples_of(rows: pd.DataFrame) -> pa.RecordBatch:
    clicked, n = rows["click"].to_numpy(), len(rows)
    return pa.RecordBatch.from_pydict(
        {
            "impression_id": rows["id"].tolist(),
            "impression_at": rows["ts"].to_numpy() * 1000,
            "user": rows["user"].tolist(),
            "item": rows["item"].tolist(),
            "position": pa.array(rows["position"].to_numpy()),
            "history": pa.array(rows["history"].tolist(), pa.list_(pa.string())),
            "click_at": pa.array(rows["ts"].to_numpy() * 1000, mask=clicked == 0),
            "label": clicked.astype(np.float32),
            "weight": np.ones(n, np.float32),
            "rate": np.ones(n, np.float32),
            "kind": pa.array(np.where(clicked == 1, "positive", "negative")),
            "negative_written": pa.array(np.zeros(n, bool)),
            **{f"impression_{part}": pa.array(np.arange(n) * scale, kind) for part, scale, kind in POSITION},
            **{f"click_{part}": pa.nulls(n, kind) for part, _, kind in POSITION},
        }
    )


@pytest.fixture(scope="module")
def mind() -> pa.RecordBatch:
    if not SOURCE.exists():
        pytest.skip(f"the MIND impressions are missing: {SOURCE}")
    return samples_of(mind_rows())


@pytest.fixture(scope="module")
def criteo() -> pa.RecordBatch:
    if not CRITEO.exists():
        pytest.skip(f"the Criteo samples are missing: {CRITEO}")
    return samples_of(criteo_rows())


def histories(rows: pd.DataFrame) -> list[list[str]]:
    """By row, the items that its user clicked in lists before, the newest last."""
    clicked: dict[str, list[str]] = defaultdict(list)
    found: list[list[str]] = []
    for _, shown in rows.groupby("impression_id", sort=False):
        user = shown["user"].iloc[0]
        found += [list(clicked[user])] * len(shown)
        clicked[user] += shown.loc[shown["click"] == 1, "item"].tolist()
    return found


LEAST_AUC = {
    "lr": 0.638, "fm": 0.668, "deepfm": 0.676, "dlrm": 0.667, "dcn": 0.666, "din": 0.656, "mmoe": 0.629, "esmm": 0.667,
    "cascade": 0.663, "two_tower": 0.629,
}  # fmt: skip
"""0.002 below what was measured, for processors that round differently. The running click rate of each item, from 4 %
with the weight of 20 rows on, has 0.674. Of the cascade, the fine ranker."""


LEAST_RECALL = {"mind": 0.3, "criteo": 0.42}
"""0.3026 and 0.4244 were measured."""
LEAST_AUC_OF_CRITEO = {
    "lr": 0.584, "fm": 0.599, "deepfm": 0.600, "dlrm": 0.569, "dcn": 0.601, "din": 0.600, "mmoe": 0.585, "esmm": 0.594,
    "cascade": 0.597,
}  # fmt: skip
"""Likewise, of 30,000 advertising impressions with five columns; logistic regression has 0.651 after many passes over
115,000. Two towers order items for a user, not impressions: of them, only the recall counts here."""


def trained_once(root: Path, name: str, samples: pa.RecordBatch) -> tuple[InMemoryTrainer, float]:
    """The trainer after one pass, and how well the scores before learning order clicks."""
    assert call("init", root, "--model", name).code == 0
    trainer = InMemoryTrainer(Project.open(root))
    first = trainer.project.config.label_names[0]
    trainer.learn(samples.rename_columns([first if column == "label" else column for column in samples.schema.names]))
    scores = np.concatenate(trainer.logits)[:, 0]
    return trainer, area_under_curve(scores, samples.column("label").to_numpy())


def recall(trainer: InMemoryTrainer, samples: pa.RecordBatch) -> float:
    """Of clicks, those whose item was in the first 10 of the items of their batch and of those drawn for it."""
    ranks = np.concatenate(trainer.ranks)[samples.column("label").to_numpy() == 1]
    return float((ranks < 10).mean())


@pytest.mark.parametrize("name", list(GalleryModel))
def test_published_model_ranks_news_after_one_pass(mind, tmp_path: Path, name: str):
    trainer, area = trained_once(tmp_path / "news", name, mind)
    assert area >= LEAST_AUC[name]
    if name == GalleryModel.TWO_TOWER:
        assert recall(trainer, mind) >= LEAST_RECALL["mind"]


@pytest.mark.parametrize("name", list(GalleryModel))
def test_published_model_ranks_advertisements_after_one_pass(criteo, tmp_path: Path, name: str):
    trainer, area = trained_once(tmp_path / "ads", name, criteo)
    if name == GalleryModel.TWO_TOWER:
        assert recall(trainer, criteo) >= LEAST_RECALL["criteo"]
    else:
        assert area >= LEAST_AUC_OF_CRITEO[name]
