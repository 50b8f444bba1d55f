"""Every model of `springtide init --model` on real news impressions: one pass, each sample scored before it is learned.

The MIND lists have a user, items and positions. A history holds the items that the user clicked in earlier lists; most
users occur once, so it is short. A second label, which a model of two labels has, is observed by no sample.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.cli.commands.create import GalleryModel
from pipeline.configuration.project import Project
from tests.real.test_mind import SOURCE
from tests.support.command.command_line import call
from tests.support.reference.ranking import area_under_curve
from tests.support.world.in_memory_trainer import InMemoryTrainer

pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason=f"the MIND impressions are missing: {SOURCE}")
ROWS = 60_000
POSITION = (("partition", 0, pa.int32()), ("offset", 1, pa.int64()), ("row", 0, pa.int32()))


@pytest.fixture(scope="module")
def samples() -> pa.RecordBatch:
    rows = pd.read_csv(SOURCE, nrows=ROWS)
    clicked = rows["click"].to_numpy()
    return pa.RecordBatch.from_pydict(
        {
            "impression_id": [
                f"{list_}-{item}" for list_, item in zip(rows["impression_id"], rows["item"], strict=True)
            ],
            "impression_at": rows["ts"].to_numpy() * 1000,
            "user": rows["user"].tolist(),
            "item": rows["item"].tolist(),
            "position": pa.array(rows["pos"]),
            "history": pa.array(histories(rows), pa.list_(pa.string())),
            "click_at": pa.array(rows["ts"] * 1000, mask=clicked == 0),
            "label": clicked.astype(np.float32),
            "weight": np.ones(ROWS, np.float32),
            "rate": np.ones(ROWS, np.float32),
            "kind": pa.array(np.where(clicked == 1, "positive", "negative")),
            "negative_written": pa.array(np.zeros(ROWS, bool)),
            **{f"impression_{part}": pa.array(np.arange(ROWS) * scale, kind) for part, scale, kind in POSITION},
            **{f"click_{part}": pa.nulls(ROWS, kind) for part, _, kind in POSITION},
        }
    )


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


@pytest.mark.parametrize("name", list(GalleryModel))
def test_published_model_ranks_news_after_one_pass(samples, tmp_path: Path, name: str):
    assert call("init", tmp_path / "news", "--model", name).code == 0
    trainer = InMemoryTrainer(Project.open(tmp_path / "news"))
    first = trainer.project.config.label_names[0]
    trainer.learn(samples.rename_columns([first if column == "label" else column for column in samples.schema.names]))
    scores, clicked = np.concatenate(trainer.logits)[:, 0], samples.column("label").to_numpy()
    assert area_under_curve(scores, clicked) >= LEAST_AUC[name]
    if trainer.project.config.towers is not None:
        ranks = np.concatenate(trainer.ranks)[clicked == 1]
        assert (ranks < 10).mean() >= LEAST_RECALL


LEAST_RECALL = 0.3
"""Of clicks in the first 10 of the items of their batch and of those drawn for it; 0.3026 was measured."""
