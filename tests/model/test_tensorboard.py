"""TensorBoard summaries of a real run, read back by TensorBoard itself."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from pipeline.telemetry import exporter
from tests.support.command.command_line import feed, make_events, make_shop, springtide

FIELDS = ("user", "item", "position", "hour")


COMMITTING = {"[train]": "[train]\ncommit_every_batches = 1"}


def train_twice(project):
    """Reports of two runs."""
    reports = []
    for first in (0, 40_000):
        feed(project, make_events(1, 300, first=first), f"from-{first}")
        reports.append(springtide(project, "run", "all", "--until-end")["train"])
    return reports


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A shop that was trained twice: (report of each run, what TensorBoard reads, the project)."""
    watched = {"[telemetry]": '[telemetry]\nport = 0\ntensorboard = "summaries"'}
    project = make_shop(tmp_path_factory.mktemp("tensorboard") / "shop", COMMITTING | watched)
    reports = train_twice(project)
    exporter.stop_exporter()
    read = EventAccumulator(str(project / "summaries" / "shard-0"), size_guidance={"tensors": 0})
    return reports, read.Reload(), project


def curve(read, name):
    """By step, the values of one scalar."""
    return {event.step: float(make_ndarray(event.tensor_proto)) for event in read.Tensors(name)}


def test_scores_are_those_of_the_reports(runs):
    reports, read, _ = runs
    for name in ("log_loss", "normalized_entropy", "calibration"):
        points = curve(read, f"{name}/label/all")
        for report in reports:
            [shard] = report["shards"]
            reported = shard["validation"]["label"]["total"][name]
            assert points[shard["samples_seen"]] == pytest.approx(reported, rel=1e-6)


def test_the_last_commit_of_a_run_is_written_even_right_after_another(runs):
    reports, read, _ = runs
    assert reports[0]["commits"] > 1
    ends = {report["shards"][0]["samples_seen"] for report in reports}
    assert ends <= set(curve(read, "rows/item"))


def test_rows_and_speed_are_curves(runs):
    reports, read, _ = runs
    rows = reports[-1]["shards"][0]["rows"]
    for field in FIELDS:
        assert list(curve(read, f"rows/{field}").values())[-1] == rows[field]
    speeds = curve(read, "samples_per_second").values()
    assert len(speeds) == 2  # a run's first commit has none before it
    assert all(speed > 0 for speed in speeds)


def test_what_was_published_and_withheld_and_what_serving_loses_are_curves(runs):
    _, read, project = runs
    versions = springtide(project, "versions", "--bytes")["versions"]
    last = {name: list(curve(read, name).values())[-1] for name in read.Tags()["tensors"] if "published" in name}
    assert 0 < last["published_bytes/realtime"] <= sum(version["delta_bytes"] for version in versions)
    assert sum(rows for name, rows in last.items() if name.startswith("published_rows/")) > 0
    withheld = [list(curve(read, f"withheld_rows/{field}").values())[-1] for field in FIELDS]
    assert sum(withheld) == versions[-1]["rows_withheld"]
    assert list(curve(read, "serving_loss/predicted").values())[-1] == pytest.approx(versions[-1]["predicted_loss"])
    assert "serving_loss/measured" in read.Tags()["tensors"]


def test_every_field_has_histograms_of_all_its_rows(runs):
    reports, read, _ = runs
    tags = set(read.Tags()["tensors"])
    assert {f"{what}/{field}" for what in ("importance", "convergence") for field in FIELDS} <= tags
    for field, rows in reports[-1]["shards"][0]["rows"].items():
        for what in ("importance", "convergence"):
            buckets = make_ndarray(read.Tensors(f"{what}/{field}")[-1].tensor_proto)  # [n, (from, to, count)]
            assert buckets[:, 2].sum() == rows


def test_summaries_do_not_change_training(runs, tmp_path):
    *_, watched = runs
    unwatched = make_shop(tmp_path / "shop", COMMITTING)
    train_twice(unwatched)
    digests = [[v["digest"] for v in springtide(shop, "versions")["versions"]] for shop in (watched, unwatched)]
    assert digests[0] == digests[1]


def test_a_folder_that_cannot_be_written_stops_the_summaries_and_not_the_training(tmp_path):
    watched = {"[telemetry]": '[telemetry]\ntensorboard = "taken"'}
    project = make_shop(tmp_path / "shop", watched)
    (project / "taken").write_text("a file, no folder")
    feed(project, make_events(1, 300))
    assert springtide(project, "run", "all", "--until-end")["train"]["commits"] > 0
