"""Both jobs killed on a stream of clicks and purchases: after one more run, the same samples and the same model.

Clicks wait for their window, purchases are negative at once and corrected by an event that comes minutes to an hour
later.
"""

import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

from tests.support.command.command_line import START_MS, feed, make_events, make_shop, samples_of, springtide, start
from tests.support.shop.purchases import PURCHASES, purchases_of
from tests.support.world.recovered import SEVERAL_COMMITS, assert_served_is_current, current, trained_anew

ROWS = 400
END_MS = START_MS + 86_400_000
POINTS = (
    "samples.before_append",
    "samples.after_append",
    "samples.after_state",
    "trainer.before_commit",
    "trainer.after_commit",
)


@pytest.fixture(scope="module")
def fed(tmp_path_factory) -> Path:
    project = make_shop(tmp_path_factory.mktemp("feedbacks") / "fed", SEVERAL_COMMITS)
    with (project / "springtide.toml").open("a") as file:
        file.write(PURCHASES)
    network = (project / "model.py").read_text()
    assert "Dense(1" in network
    (project / "model.py").write_text(network.replace("Dense(1", "Dense(2"))
    for first in (0, ROWS):
        events = make_events(1, ROWS, first)
        feed(project, events, f"from-{first}", close=False)
        bought = project / f"purchases-{first}.parquet"
        purchases_of(events[0], first).to_parquet(bought, index=False)
        assert springtide(project, "ingest", "purchase", bought)["bad_rows"] == 0
    springtide(project, "heartbeat", END_MS)
    return project


@pytest.fixture(scope="module")
def undisturbed(fed) -> Path:
    project = shutil.copytree(fed, fed.parent / "undisturbed")
    springtide(project, "run", "all", "--until-end")
    return project


@pytest.fixture(scope="module")
def crashed(fed) -> dict[str, Path]:
    """By crash point, a project whose process was killed at its second pass."""
    running = {point: shutil.copytree(fed, fed.parent / point) for point in POINTS}
    started = {point: start(running[point], "run", "all", "--until-end", crash_at=f"{point}:2") for point in POINTS}
    for point, process in started.items():
        output = process.communicate(timeout=240)
        assert process.returncode == -signal.SIGKILL, (point, output)
    return running


def test_every_label_is_decided_with_its_corrections(undisturbed):
    samples = samples_of(undisturbed)
    decided = {name: samples[samples[name].notna()] for name in ("label", "purchase")}
    for name, rows in decided.items():
        first = rows[rows["kind"] != "compensation"]
        assert sorted(first["impression_id"]) == sorted(f"imp-{i:06d}" for i in range(2 * ROWS)), name
        assert set(rows["kind"]) >= {"negative", "compensation"}
    assert (decided["purchase"]["kind"] != "positive").all()  # a purchase always comes after its negative
    assert (decided["label"]["kind"] == "positive").any()


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_changes_neither_samples_nor_model(crashed, undisturbed, tmp_path, point):
    project = crashed[point]
    springtide(project, "run", "all", "--until-end")
    order = ["impression_offset", "impression_row", "kind", "label", "purchase"]
    found, wanted = (samples_of(each).sort_values(order, ignore_index=True) for each in (project, undisturbed))
    pd.testing.assert_frame_equal(found, wanted)
    assert current(project)["digest"] == current(trained_anew(project, tmp_path / "anew"))["digest"]
    assert_served_is_current(project)
