"""The real display impressions inside the PyPI package obp (Open Bandit), through the command line, against pandas."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.real.command import assert_same_samples, springtide

PACKAGE = "obp==0.4.1"
WINDOW_MS, HORIZON_MS = 600_000, 3_600_000
RAW = ["policy", "campaign", "item", "position", "propensity"]
COLUMNS = ["id", *RAW, "impression_at", "click_at", "label", "weight", "rate", "kind"]

CONFIG = """
[logs]
partitions = 2
shards = 2

[events]
key = ["id"]
disorder_s = 5

[events.impressions]
time = "timestamp"
time_unit = "iso"
columns = {{ id = "int", policy = "string", campaign = "string", item = "int", position = "int", propensity = "float" }}

[events.clicks]
time = "clicked"
time_unit = "s"
columns = {{ id = "int" }}

[samples]
window_s = 600
horizon_s = 3600
policy = "{policy}"

[[fields]]
name = "item"
columns = ["campaign", "item"]
transform = "cross"
"""


@pytest.fixture(scope="module")
def impressions(tmp_path_factory) -> pd.DataFrame:
    """All six logs as one, in time order; `timestamp` in the format of the package, and `at_ms`."""
    target = tmp_path_factory.mktemp("obp")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), PACKAGE]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot fetch {PACKAGE}: {done.stderr.strip()[-200:]}")
    names = {"item_id": "item", "propensity_score": "propensity"}
    parts = []
    for path in sorted((target / "obp" / "dataset" / "obd").glob("*/*/*.csv")):
        if path.stem == path.parent.name:
            rows = pd.read_csv(path, usecols=["timestamp", "item_id", "position", "click", "propensity_score"])
            parts.append(rows.rename(columns=names).assign(policy=path.parts[-3], campaign=path.stem))
    rows = pd.concat(parts, ignore_index=True)
    rows["at_ms"] = (
        pd.to_datetime(rows["timestamp"], utc=True, format="ISO8601").dt.as_unit("us").astype("int64") // 1000
    )
    rows = rows.sort_values("at_ms", kind="stable", ignore_index=True)
    rows["id"] = np.random.default_rng(31).permutation(len(rows))
    return rows


def joined(impressions: pd.DataFrame, clicks: pd.DataFrame, policy: str) -> pd.DataFrame:
    rows = impressions.merge(clicks[["id", "clicked_ms"]], on="id", how="left").rename(
        columns={"at_ms": "impression_at"}
    )
    delay_ms = rows["clicked_ms"] - rows["impression_at"]
    in_window = (delay_ms < WINDOW_MS) & (policy == "wait")
    corrected = (delay_ms < WINDOW_MS + HORIZON_MS) & ~in_window
    positive = rows[in_window].assign(kind="positive", label=1.0, click_at=lambda own: own["clicked_ms"])
    negative = rows[~in_window].assign(kind="negative", label=0.0, click_at=None)
    compensation = rows[corrected].assign(kind="compensation", label=1.0, click_at=lambda own: own["clicked_ms"])
    return pd.concat([positive, negative, compensation]).assign(weight=1.0, rate=1.0)


@pytest.mark.parametrize("policy", ["wait", "fake_negative"])
def test_display_impressions_join_as_in_pandas(tmp_path: Path, impressions, policy):
    assert len(impressions) == 60_000
    (tmp_path / "springtide.toml").write_text(CONFIG.format(policy=policy))
    clicks = impressions.loc[impressions["click"] == 1, ["id", "at_ms"]].copy()
    delays_ms = np.random.default_rng(32).choice(
        [100_000, 599_999, 600_000, 3_000_000, 4_199_999, 4_200_000], len(clicks)
    )
    clicks["clicked_ms"] = clicks["at_ms"] + delays_ms
    clicks["clicked"] = clicks["clicked_ms"] / 1000
    clicks = clicks.sort_values("clicked_ms")
    impressions[["timestamp", "id", *RAW]].to_csv(tmp_path / "impressions.csv", index=False)
    clicks[["id", "clicked"]].to_json(tmp_path / "clicks.jsonl", orient="records", lines=True, double_precision=3)
    assert springtide(tmp_path, "ingest", "impressions", str(tmp_path / "impressions.csv"))["rows"] == 60_000
    assert springtide(tmp_path, "ingest", "clicks", str(tmp_path / "clicks.jsonl"))["rows"] == len(clicks)
    springtide(tmp_path, "heartbeat", str(int(impressions["at_ms"].max()) + 86_400_000))
    springtide(tmp_path, "run", "samples", "--until-end")
    springtide(tmp_path, "export", "samples", "--out", str(tmp_path / "samples.parquet"))
    assert_same_samples(pd.read_parquet(tmp_path / "samples.parquet"), joined(impressions, clicks, policy), COLUMNS)
