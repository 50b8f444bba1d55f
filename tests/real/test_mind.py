"""Real news impressions through the command line: the join against pandas, row for row, and what one pass learns."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.real.command import assert_same_samples, springtide
from tests.real.mind_peers import SOURCE

pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason=f"the MIND impressions are missing: {SOURCE}")

WINDOW_MS, HORIZON_MS, REMEMBER_MS, DISORDER_MS = 30_000, 300_000, 60_000, 5_000
KEY = ["impression_id", "item"]
RAW = ["user", "pos", "list_size"]
COLUMNS = [*KEY, *RAW, "impression_at", "click_at", "label", "weight", "rate", "kind"]


@pytest.fixture(scope="module")
def impressions() -> pd.DataFrame:
    rows = pd.read_csv(SOURCE)
    rows["list_size"] = rows.groupby("impression_id")["item"].transform("size")
    return rows


def clicks_of(impressions: pd.DataFrame, delays_ms: np.ndarray, seed: int) -> pd.DataFrame:
    """The clicks, each with a delay, in an order within the disorder."""
    clicks = impressions.loc[impressions["click"] == 1, ["impression_id", "item", "user", "ts"]].copy()
    clicks["clicked_at"] = clicks.pop("ts") * 1000 + delays_ms
    arrival = clicks["clicked_at"] + np.random.default_rng(seed).integers(0, DISORDER_MS - 1, len(clicks))
    return clicks.iloc[np.argsort(arrival.to_numpy(), kind="stable")]


def prepare(root: Path, impressions: pd.DataFrame, clicks: pd.DataFrame) -> Path:
    """A project with both files ingested and both inputs complete."""
    project = root / "project"
    shutil.copytree(Path(__file__).parent / "mind", project, ignore=shutil.ignore_patterns("__pycache__", "state"))
    impressions.drop(columns="click").to_csv(root / "impressions.csv.gz", index=False)
    clicks.to_parquet(root / "clicks.parquet", index=False)
    shown = springtide(project, "ingest", "impressions", str(root / "impressions.csv.gz"))
    pressed = springtide(project, "ingest", "clicks", str(root / "clicks.parquet"))
    assert (shown["rows"], shown["bad_rows"]) == (len(impressions), 0)
    assert (pressed["rows"], pressed["bad_rows"]) == (len(clicks), 0)
    over_ms = max(int(impressions["ts"].max()) * 1000, int(clicks["clicked_at"].max())) + 86_400_000
    springtide(project, "heartbeat", str(over_ms))
    return project


def joined(impressions: pd.DataFrame, clicks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The expected samples, and the clicks after the horizon with their delay."""
    rows = impressions.merge(clicks[[*KEY, "clicked_at"]], on=KEY, how="left")
    rows["impression_at"] = rows["ts"] * 1000
    delay_ms = rows["clicked_at"] - rows["impression_at"]
    in_window, in_horizon = delay_ms < WINDOW_MS, (delay_ms >= WINDOW_MS) & (delay_ms < WINDOW_MS + HORIZON_MS)
    positive = rows[in_window].assign(kind="positive", label=1.0, click_at=lambda own: own["clicked_at"])
    negative = rows[~in_window].assign(kind="negative", label=0.0, click_at=None)
    compensation = rows[in_horizon].assign(kind="compensation", label=1.0, click_at=lambda own: own["clicked_at"])
    samples = pd.concat([positive, negative, compensation]).assign(weight=1.0, rate=1.0)
    return samples, rows.assign(delay_ms=delay_ms)[delay_ms >= WINDOW_MS + HORIZON_MS]


def test_clicks_inside_and_outside_window_and_horizon_join_as_in_pandas(tmp_path, impressions):
    rng = np.random.default_rng(11)
    count = int(impressions["click"].sum())
    spans = np.array([(0, 30), (30, 330), (330, 380), (1_000, 5_000)])
    low, high = spans[rng.choice(4, count, p=[0.7, 0.15, 0.1, 0.05])].T * 1000
    delays_ms = rng.integers(low, high)
    edges = [0, WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + HORIZON_MS - 1, WINDOW_MS + HORIZON_MS]
    delays_ms[: 10 * len(edges)] = np.repeat(edges, 10)
    clicks = clicks_of(impressions, delays_ms, seed=12)
    project = prepare(tmp_path, impressions, clicks)
    springtide(project, "run", "samples", "--until-end")
    springtide(project, "export", "samples", "--out", str(tmp_path / "samples.parquet"))
    wanted, behind = joined(impressions, clicks)
    assert_same_samples(pd.read_parquet(tmp_path / "samples.parquet"), wanted, COLUMNS)
    springtide(project, "export", "dead-letters", "--out", str(tmp_path / "dead.parquet"))
    reasons = pd.read_parquet(tmp_path / "dead.parquet")["reason"].value_counts().to_dict()
    remembered = behind["delay_ms"] < WINDOW_MS + HORIZON_MS + REMEMBER_MS
    assert reasons == {"click_too_late": remembered.sum(), "orphan_click": (~remembered).sum()}


def test_one_pass_in_time_order_ranks_better_than_vowpal_wabbit(tmp_path, impressions):
    delays_ms = np.random.default_rng(21).integers(0, WINDOW_MS, int(impressions["click"].sum()))
    clicks = clicks_of(impressions, delays_ms, seed=22)
    project = prepare(tmp_path, impressions, clicks)
    report = springtide(project, "run", "all", "--until-end")
    springtide(project, "export", "samples", "--out", str(tmp_path / "samples.parquet"))
    assert_same_samples(pd.read_parquet(tmp_path / "samples.parquet"), joined(impressions, clicks)[0], COLUMNS)
    total = report["train"]["shards"][0]["validation"]["label"]["total"]
    assert total["samples"] == len(impressions)
    # Vowpal Wabbit on the same rows: AUC 0.688, log loss 0.1560; River and Keras are in `mind_peers.py`. Measured here:
    # 0.7200 and 0.1513; training is deterministic, and processors round a little differently.
    assert total["auc"] >= 0.7195
    assert total["log_loss"] <= 0.152
    assert total["calibration"] == pytest.approx(1, abs=0.02)
