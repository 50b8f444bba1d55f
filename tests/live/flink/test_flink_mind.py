"""All real news impressions on Flink: the same samples as in process, row for row, and as good a model from them."""

import shutil

import numpy as np
import pandas as pd
import pytest

from tests.live.live_shop import Live, current, reference_project
from tests.real.command import assert_same_samples
from tests.real.test_mind import COLUMNS, SOURCE, WINDOW_MS, clicks_of, impressions, joined, prepare
from tests.support.command.command_line import samples_of, springtide

__all__ = ["impressions"]
DISORDER_MS = 5_000
pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason=f"the MIND impressions are missing: {SOURCE}")


def behind_ms(project, out):
    """How far a sample stands behind one that was decided later, at most."""
    springtide(project, "export", "samples", "--out", out)
    rows = pd.read_parquet(out)
    decided = np.fmax(rows["click_at"], rows["impression_at"] + WINDOW_MS)  # a click in the window waits for its end
    return (np.maximum.accumulate(decided) - decided).max()


def train(project):
    """The progressive validation of a run in process over all samples."""
    report = springtide(project, "run", "train", "--until-end")
    return report["shards"][0]["validation"]["label"]["total"]


def test_samples_and_model_of_mind_are_those_of_a_run_in_process(cluster, tmp_path, impressions):
    rng = np.random.default_rng(51)
    count = int(impressions["click"].sum())
    low, high = np.array([(0, 30), (30, 330), (1_000, 5_000)])[rng.choice(3, count, p=[0.8, 0.15, 0.05])].T * 1000
    clicks = clicks_of(impressions, rng.integers(low, high), seed=52)
    twin = prepare(tmp_path, impressions, clicks)
    live = Live(shutil.copytree(twin, tmp_path / "live"), cluster)
    live.run("all")
    try:
        springtide(twin, "run", "samples", "--until-end")
        live.wait_for_samples(samples_of(twin))
        assert_same_samples(samples_of(live.project), joined(impressions, clicks)[0], COLUMNS)
        assert behind_ms(live.project, tmp_path / "in-log-order.parquet") <= 2 * DISORDER_MS
        reference = reference_project(live.project)
        on_flink, in_process = (train(project) for project in (reference, twin))
        assert on_flink["samples"] == in_process["samples"]
        assert on_flink["normalized_entropy"] == pytest.approx(in_process["normalized_entropy"], abs=0.002)
        live.wait_for(lambda: current(live.project) == current(reference))
    finally:
        live.stop()
