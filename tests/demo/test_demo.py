"""A small demo: the scenario runs to its end, the rollback is exact, the numbers match logs and files."""

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from pipeline.configuration.project import Project
from pipeline.demo.evaluation import EvaluationSet, expected_ne, normalized_entropy
from pipeline.demo.folder import fresh_folder
from pipeline.demo.run import run_demo
from pipeline.demo.scenario import Scenario
from pipeline.errors import InputError
from pipeline.files.folder import local_file
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import Market
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.deltas.published_files import read_delta_manifest
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.world.stored_paths import path_of

TINY = MarketConfig(
    users=100,
    items=40,
    impressions_per_hour=1_500,
    hours=7,
    click_rate=0.15,
    quality=1.5,
    bots=(3, 4),
    bot_share=1.0,
    bot_users=100,
    bot_items=10,
)
SCENARIO = Scenario(market=TINY, warm_up_hours=2, refresh_hours=2, noticed_hour=5, commit_every_batches=2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(summary, lines printed, folder) of one small run."""
    out, lines = tmp_path_factory.mktemp("demo"), []
    return run_demo(out, lines.append, SCENARIO), lines, out


@pytest.fixture(scope="module")
def project(demo):
    return Project.open(demo[2] / "project")


def test_the_replica_serves_the_target_byte_for_byte_after_the_rollback(demo):
    assert demo[0]["rollback"]["equal"]


def test_the_target_of_the_rollback_has_learned_from_nothing_the_bots_did(demo, project):
    store, back = VersionStore(project), demo[0]["rollback"]
    target, undone = (store.ledger.version(VersionId.parse(back[name])) for name in ("target", "undone"))
    assert target.last_at_ms < SCENARIO.at_ms(3) <= undone.last_at_ms
    assert back["unlearned"] == undone.samples_seen - target.samples_seen > 0


def test_the_branch_without_rollback_begins_with_a_full_of_every_row(demo):
    written, original = Project.open(demo[2] / "without-rollback"), Project.open(demo[2] / "project")
    topics = written.config.topics.model_copy(update={"ledger": "ledger-without-rollback"})
    logs = written.config.logs.model_copy(update={"path": str(original.logs)})
    branch = replace(written, config=written.config.model_copy(update={"topics": topics, "logs": logs}))
    manifests = [
        read_delta_manifest(local_file(path)) for path in path_of(branch.published).glob("g*/s0-of-1/full-*.json")
    ]
    first = min(manifests, key=lambda manifest: manifest.to_sequence)
    with closing(VersionStore(branch)) as store:
        commit = store.restore(VersionId(first.generation, 0, 1, first.to_sequence))
    assert first.rows == sum(len(field.keys) for field in commit.fields.values()) > 0


def test_training_goes_on_from_the_target_without_the_quarantined_samples(demo, project):
    store, back = VersionStore(project), demo[0]["rollback"]
    lineage = {str(version.id): version for version in store.lineage(0)}
    assert back["target"] in lineage
    assert back["undone"] not in lineage
    current = store.lineage(0)[-1]
    assert current.id.generation == 1
    assert current.last_at_ms > back["quarantine_ms"][1]
    skipped = sum(demo[0]["samples"].values()) - current.samples_seen
    # An hour of users and bots, and ten minutes more; some of the last samples wait for a full batch.
    assert 3_000 < skipped < 4_200


def test_bots_degrade_the_live_model_and_no_model_beats_the_exact_probabilities(demo):
    result = demo[0]
    assert result["contamination"]["peak_ne"] > 1.05 * result["contamination"]["before_ne"]
    assert all(result["ne"]["truth"] < ne < 2 for name, ne in result["ne"].items() if name != "truth")
    assert set(result["ne"]) == {"live", "daily", "once", "truth"}
    assert "without rollback" in result["ne_after_rollback"]


def test_realtime_bytes_are_those_in_the_deltas_topic(demo, project):
    values = [record.value for record in open_log(project).read("deltas", 0, 0)]
    levels = [decode_delta(value).level for value in values]
    assert levels.count("reverse") == 1
    sizes = [len(value) for value, level in zip(values, levels, strict=True) if level == "realtime"]
    realtime = demo[0]["levels"]["realtime"]
    assert (realtime["deltas"], realtime["sent_bytes"]) == (len(sizes), sum(sizes))


def test_file_bytes_are_those_on_disk(demo, project):
    for level in ("full", "incremental"):
        files = list(path_of(project.published).glob(f"g*/*/{level}-*.delta"))
        assert demo[0]["levels"][level]["deltas"] == len(files) > 0
        assert demo[0]["levels"][level]["sent_bytes"] == sum(file.stat().st_size for file in files)


def test_snapshots_get_smaller_and_lose_more_as_bytes_cost_more(demo):
    points, fp32_bytes = demo[0]["prices"], demo[0]["snapshot_fp32_bytes"]
    sizes, losses = ([point[name] for point in points] for name in ("bytes", "loss"))
    assert sizes == sorted(sizes, reverse=True)
    assert fp32_bytes > sizes[0] > 2 * sizes[-1] > 0
    assert losses[-1] > losses[len(losses) // 2] > losses[0] >= 0


def test_precisions_are_shares_of_all_changed_rows(demo):
    shares = demo[0]["precisions"]
    assert list(shares) == ["withheld", "4", "8", "16", "32"]
    assert sum(shares.values()) == pytest.approx(1)


def test_faults_of_the_market_become_dead_letters(demo):
    dead = demo[0]["dead_letters"]
    assert dead["undecodable"] == TINY.hours * TINY.poison_per_hour
    assert dead["time_out_of_range"] == TINY.hours * TINY.misdated_per_hour
    assert dead["duplicate_impression"] > 0


def test_the_picture_is_a_png_of_its_size(demo):
    content = (demo[2] / "demo.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (1600, 1100)


def test_the_summary_is_written_as_json_next_to_the_picture(demo):
    assert json.loads((demo[2] / "demo.json").read_text()) == demo[0]


def test_the_events_of_the_scenario_are_printed(demo):
    printed = "\n".join(demo[1])
    assert "simulated" in printed
    assert "the operator rolls back to day 1, 03:00" in printed
    assert "equals the target's, byte for byte" in printed


def test_a_later_run_removes_only_folders_that_a_demo_created(tmp_path):
    (fresh_folder(tmp_path / "project") / "old").write_text("old")
    assert not (fresh_folder(tmp_path / "project") / "old").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").write_text("kept")
    with pytest.raises(InputError, match="was not created by a demo"):
        fresh_folder(tmp_path / "mine")
    assert (tmp_path / "mine" / "kept").read_text() == "kept"


@pytest.mark.parametrize("changes", [{"warm_up_hours": 4}, {"noticed_hour": 3}, {"noticed_hour": 7}])
def test_a_scenario_out_of_order_is_refused(changes):
    with pytest.raises(ValueError, match="wanted in this order"):
        replace(SCENARIO, **changes)


def test_the_rollback_must_come_after_the_harm_is_visible():
    with pytest.raises(ValueError, match="harm is visible from 4 on"):
        replace(SCENARIO, noticed_hour=4)


def test_a_scenario_needs_bots():
    with pytest.raises(ValueError, match="scenario needs some"):
        Scenario(market=replace(TINY, bots=None))


def test_an_evaluation_set_has_each_genuine_impression_once():
    market = Market(3, replace(TINY, duplicate_share=0.3, impressions_per_hour=4_000))
    hour = [market.events(hour) for hour in range(4)][3]
    examples = EvaluationSet.of(hour)
    ids = examples.rows.column("id").to_numpy()
    genuine = set(hour.truth.id[~hour.truth.bot])
    assert len(ids) == len(set(ids)) > 0.98 * len(genuine)
    assert set(ids) <= genuine
    by_id = dict(zip(hour.truth.id, hour.truth.probability, strict=True))
    assert examples.probability.tolist() == [by_id[id] for id in ids]


def test_expected_ne_is_the_mean_of_ne_over_many_draws():
    random = np.random.default_rng(1)
    probability = random.uniform(0.05, 0.4, 20_000)
    predicted = np.clip(probability * random.uniform(0.5, 1.5, 20_000), 0.01, 0.99)
    drawn = [normalized_entropy(predicted, random.random(20_000) < probability) for _ in range(40)]
    assert expected_ne(predicted, probability) == pytest.approx(np.mean(drawn), rel=2e-3)
