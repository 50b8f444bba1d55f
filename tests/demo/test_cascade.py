"""A small cascade in processes of its own: each stage passes on better items, and clicks change all of them."""

import json
from itertools import pairwise

import pytest

from pipeline.configuration.project import Project
from pipeline.demo.cascade.run import CascadeScenario, run_cascade
from pipeline.demo.cascade.stages import Sizes
from pipeline.errors import InputError
from pipeline.market.config import MarketConfig
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.stages.recall_freshness import figures_of
from tests.support.command.command_line import call

MARKET = MarketConfig(
    users=300, items=150, impressions_per_hour=8_000, hours=4, click_rate=0.2, taste=0.5, quality=1.5, churn=0.0
)
SCENARIO = CascadeScenario(market=MARKET, sizes=Sizes(60, 20, 5), users=30, probes=3)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    """(summary, lines printed, folder) of one run."""
    out, lines = tmp_path_factory.mktemp("demo"), []
    return run_cascade(out, lines.append, SCENARIO), lines, out


def test_each_stage_passes_on_fewer_items_and_rankers_better_ones_than_recall(cascade):
    stages = cascade[0]["stages"]
    assert [found["items"] for found in stages.values()] == [150, 60, 20, 5, 5]
    everything, recall, coarse, fine, best = (found["click_probability"] for found in stages.values())
    # The fine ranker has learned too little here to be better than the coarse one for certain.
    for ranker in (coarse, fine):
        assert everything < recall < ranker < best
        assert ranker > 1.5 * everything


def test_clicks_change_every_stage_by_versions_of_their_own(cascade):
    freshness, project = cascade[0]["freshness_s"], Project.open(cascade[2] / "cascade" / "project")
    assert list(freshness) == ["recall", "coarse", "fine"]
    assert all(len(times) == SCENARIO.probes and 0 < min(times) <= max(times) < 60 for times in freshness.values())
    store = VersionStore(project)
    probed = [version.samples_seen for version in store.lineage(0)[-1 - SCENARIO.probes :]]
    store.close()
    assert min(b - a for a, b in pairwise(probed)) >= project.config.model.batch_size


def test_the_benchmark_of_freshness_has_a_figure_for_each_stage(cascade):
    figures = {figure.what.rpartition(" ")[2]: figure for figure in figures_of(cascade[0]["freshness_s"], 150, 60.0)}
    assert list(figures) == ["recall", "coarse", "fine"]
    for name, times in cascade[0]["freshness_s"].items():
        assert min(times) <= figures[name].sizes["p50 s"] <= figures[name].value <= max(times)
        assert figures[name].target == "<= 60"


def test_the_summary_is_printed_and_written(cascade):
    summary, lines, out = cascade
    assert json.loads((out / "cascade" / "cascade.json").read_text()) == summary
    assert lines[0] == "3 hours of a market with 150 items are learned"
    assert len(lines) == 1 + 5 + 3


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "cascade").mkdir()
    with pytest.raises(InputError, match="was not created by a demo"):
        run_cascade(tmp_path, print, SCENARIO)


def test_the_dry_run_names_the_folder(tmp_path):
    done = call("demo", "--cascade", "--out", tmp_path, "--dry-run", "--json")
    assert done.result == {"would_write": [str(tmp_path / "cascade")], "would_remove": []}
