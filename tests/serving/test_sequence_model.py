"""A model over a history, from an ingested file to the replica's predictions."""

import numpy as np
import pytest

from pipeline.configuration.project import Project
from pipeline.features.plan import FeaturePlan
from pipeline.logs.open import open_log
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.command_line import START_MS, call, make_events, springtide

ROWS = 1_500
HISTORIES = ([], ["i1"], ["i1", "i2", "i3"], ["i3", "i2", "i1"], ["i1", "never shown"], [f"i{i}" for i in range(25)])


def history_of(row: int) -> list[str]:
    return [f"i{(row * step) % 30}" for step in range(1, 1 + row % 6)]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A DIN that learned a small shop, and a replica that followed its deltas."""
    folder = tmp_path_factory.mktemp("sequence") / "shop"
    assert call("init", folder, "--model", "din").code == 0
    with (folder / "springtide.toml").open("a") as written:
        written.write("\n[publish]\ndense = 'exact'\n")
    impressions, clicks = make_events(5, ROWS)
    impressions["history"] = [history_of(row) for row in range(ROWS)]
    for kind, rows in {"impressions": impressions, "clicks": clicks}.items():
        rows.to_parquet(folder / f"{kind}.parquet", index=False)
        assert springtide(folder, "ingest", kind, folder / f"{kind}.parquet")["bad_rows"] == 0
    springtide(folder, "heartbeat", START_MS + 86_400_000)
    springtide(folder, "run", "all", "--until-end")
    project = Project.open(folder)
    replica = Replica.for_predictions(project, open_log(project))
    replica.catch_up()
    return project, replica


def instances(histories=HISTORIES):
    return [{"user": "u1", "item": "i2", "position": 1, "at": START_MS, "history": each} for each in histories]


def test_elements_are_rows_of_the_items_table_of_version_and_replica(served):
    project, replica = served
    store = VersionStore(project)
    table, plan = store.restore(store.current(0)).fields["items"], FeaturePlan(project.config, project.root)
    shown = [plan.key_of("history", {"history": f"i{i}"}) for i in range(30)]
    assert set(shown) <= set(table.keys.tolist())
    assert set(shown) == {plan.key_of("item", {"item": f"i{i}"}) for i in range(30)}
    assert np.all(np.any(replica.lookup("items", np.array(shown, np.uint64)) != 0, axis=1))


def test_replica_predicts_what_the_committed_network_makes_of_the_served_rows(served):
    project, replica = served
    store = VersionStore(project)
    network = Predictor(project.config, project.root)
    network.load(store.restore(store.current(0)).dense)
    predicted, version = replica.predict(instances())
    assert version == str(store.current(0))
    expected = network.predict(network.features(instances(), START_MS), replica.lookup)
    np.testing.assert_array_equal(predicted, expected)


def test_prediction_depends_on_the_elements_and_on_no_padding(served):
    _, replica = served
    nothing, one, three, reordered, unknown, many = replica.predict(instances())[0].ravel()
    assert len({nothing, one, three, many}) == 4
    assert three == pytest.approx(reordered, rel=1e-6)  # DIN adds up what it attends to
    assert unknown == pytest.approx(one, rel=1e-6)  # an item without a row adds zeros
    last, first = HISTORIES[-1][-20:], HISTORIES[-1][:20]
    kept, other = replica.predict(instances([last, first]))[0].ravel()
    assert many == pytest.approx(kept, rel=1e-6)  # max_length = 20 keeps the last
    assert many != pytest.approx(other, rel=1e-6)
