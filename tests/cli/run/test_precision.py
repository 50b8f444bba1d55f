"""`springtide precision` on a trained project: what it shows, and that it changes nothing."""

from contextlib import closing

import numpy as np
import pytest

from pipeline.configuration.project import Project
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.deltas.delta_sizes import coded_bytes
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.command_line import call, feed, make_events, make_shop, springtide

TABLES = {"user", "item", "position", "hour"}
BITS = (0, 4, 8, 16, 32)
FACTORS = [4.0**exponent for exponent in range(-4, 5)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    committing = {"[train]": "[train]\ncommit_every_batches = 2"}
    project = make_shop(tmp_path_factory.mktemp("shop") / "project", committing)
    feed(project, make_events(1, 1_500))
    springtide(project, "run", "samples", "--until-end")
    springtide(project, "run", "train", "--until-end")
    return project


@pytest.fixture(scope="module")
def current(shop):
    with closing(VersionStore(Project.open(shop))) as store:
        return store.restore(store.current(0))


@pytest.fixture(scope="module")
def searched(shop):
    return springtide(shop, "precision", "--samples", "600")


def test_every_table_is_shown_as_serving_holds_it(shop, current):
    shown = springtide(shop, "precision")
    delta = decode_delta(current.delta)
    assert {row["table"] for row in shown["tables"]} == TABLES
    for row in shown["tables"]:
        change, sent = current.fields[row["table"]], delta.fields[row["table"]]
        served = np.isin(change.keys, change.served_keys)
        assert row["rows_0_bits"] == int((~served).sum())
        for bits in BITS[1:]:
            assert row[f"rows_{bits}_bits"] == int((change.served_bits == bits).sum())
        assert row["withheld_rows"] == current.quality.withheld[row["table"]]
        size = coded_bytes(sent) / len(sent) if len(sent) else None
        assert row["bytes_per_row_sent"] == (size and pytest.approx(size))


def test_no_byte_that_was_not_sent_gains_more_than_the_price_and_losses_add_up_to_the_predicted_one(shop):
    shown = springtide(shop, "precision")
    [shard] = shown["shards"]
    for row in shown["tables"]:
        assert 0 <= row["next_byte_gains"] <= shard["price_per_byte"] * (1 + 1e-6)
    losses = [shard["dense_loss"], *(row["serving_loss"] for row in shown["tables"])]
    assert min(losses) > 0
    assert sum(losses) == pytest.approx(shard["predicted_loss"], rel=1e-4)


def test_a_lower_price_takes_more_bytes_and_loses_less(searched):
    points = searched["prices"]
    assert [point["price"] for point in points] == FACTORS
    sizes = [point["snapshot_bytes"] for point in points]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]
    losses = [point["divergence"] for point in points]
    assert 0 <= losses[0] < 1e-4 < losses[-1]
    assert points[0]["ks_distance"] < points[-1]["ks_distance"]
    rows = {sum(point[f"rows_{bits}_bits"] for bits in BITS) for point in points}
    assert len(rows) == 1
    assert points[0]["rows_0_bits"] < points[-1]["rows_0_bits"]


def test_scores_at_a_low_price_are_those_of_the_trainer_in_every_decile(searched):
    assert (searched["samples"], searched["learned_samples"], searched["label"]) == (600, 600, "label")
    lowest, *_, highest = searched["calibration"]
    ratios = [lowest[f"decile_{i}"] for i in range(1, 11)]
    assert ratios == pytest.approx([1] * 10, rel=0.01)
    assert abs(np.log([highest[f"decile_{i}"] for i in range(1, 11)])).max() > abs(np.log(ratios)).max()


def test_one_table_is_shown_and_a_picture_is_written(shop, tmp_path):
    picture = tmp_path / "precision.png"
    done = call("precision", "user", "--samples", "300", "--out", picture, "--project", shop)
    assert done.code == 0, done.err
    assert "bytes per row sent" in done.out
    assert "position" not in done.out
    assert f"written: {picture}" in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["precision.png"]


def test_nothing_is_disturbed(shop, searched):
    def state():
        with closing(VersionStore(Project.open(shop))) as store:
            return store.ledger.epoch(0), store.current(0), [path.name for path in sorted((shop / "state").rglob("*"))]

    before = state()
    assert springtide(shop, "precision", "--samples", "600") == searched
    assert state() == before
