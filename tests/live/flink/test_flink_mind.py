"""All real news impressions on Flink: the same samples as in process, row for row, and the same model from them."""

import shutil

import numpy as np
import pytest

from tests.live.live_shop import Live, current, reference_project
from tests.real.command import assert_same_samples
from tests.real.test_mind import COLUMNS, SOURCE, clicks_of, impressions, joined, prepare
from tests.support.command_line import samples_of, springtide

__all__ = ["impressions"]
pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason=f"the MIND impressions are missing: {SOURCE}")


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
        reference = reference_project(live.project)
        springtide(reference, "run", "train", "--until-end")
        live.wait_for(lambda: current(live.project) == current(reference))
    finally:
        live.stop()
