"""`springtide status`: a summary as text, everything as JSON, and partial results while the log is unavailable."""

import pytest

from pipeline.cluster.ports import free_port
from pipeline.configuration.project import Project
from pipeline.flink.resume import LastSubmission, write_last_submission
from pipeline.logs.open import open_log
from pipeline.process.clock import SystemClock
from tests.support.command.command_line import call, feed, make_events, make_shop, springtide

TIMEOUT_S = 20.0


@pytest.fixture
def joined(tmp_path):
    """A project whose join has run and still holds impressions."""
    shop = make_shop(tmp_path)
    feed(shop, make_events(3, 200), close=False)
    springtide(shop, "run", "samples", "--until-end")
    return shop


def test_text_shows_times_sizes_and_a_row_for_each_partition(joined):
    found = springtide(joined, "status")
    lines = call("status", "--project", joined).out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert found["join"]["held_impressions"] > 0
    assert rows["impressions/0"][1:4] == [
        str(found["join"]["inputs"]["impressions/0"][n]) for n in ("offset", "end", "lag")
    ]
    assert rows["impressions/0"][4].startswith("2025-06-15T")
    assert rows["watermark:"][1].startswith("2025-06-15T")
    assert " KiB, stored " in next(line for line in lines if line.strip().startswith("state: "))
    assert not [line for line in lines if "_ms" in line or "problem" in line]
    assert found["log_problem"] is None


def test_a_foreign_record_that_stops_the_join_is_a_warning_with_the_way_past_it(joined):
    log = open_log(Project.open(joined))
    offset = log.append("samples", 0, [b"hello", b"foreign"])
    log.close()
    (line,) = [line for line in call("status", "--project", joined).out.splitlines() if "of the join" in line]
    assert f"shard 0 of the join cannot open: topic samples, partition 0, offset {offset}: " in line
    command = f"quarantine add --shard 0 --offsets {offset}..{offset + 2}"
    assert command in line
    springtide(joined, *command.split())
    assert "of the join" not in call("status", "--project", joined).out
    springtide(joined, "run", "samples", "--until-end")


def test_an_unavailable_cluster_is_reported_in_the_row_of_each_job(joined):
    rest = f"127.0.0.1:{free_port()}"
    with (joined / "springtide.toml").open("a") as file:
        file.write(f'\n[flink]\nrest = "{rest}"\n')
    write_last_submission(joined / "state" / "flink", "samples", LastSubmission("4d1d", "form"))
    (job,) = springtide(joined, "status")["jobs"]
    assert (job["job"], job["id"], job["state"]) == ("samples", "4d1d", "UNKNOWN")
    assert job["last_failure"].startswith(f"flink at http://{rest} is unavailable")
    shown = next(line for line in call("status", "--project", joined).out.splitlines() if "UNKNOWN" in line)
    assert shown.split()[:4] == ["samples", "UNKNOWN", "–", "–"]
    assert job["last_failure"] in shown


def test_an_unavailable_log_is_reported_within_seconds_and_the_rest_is_shown(joined):
    settings = joined / "springtide.toml"
    unavailable = f'[logs]\nengine = "kafka"\nbootstrap = "127.0.0.1:{free_port()}"\n'
    settings.write_text(settings.read_text().replace("[logs]\n", unavailable))
    clock = SystemClock()
    began_s = clock.monotonic_s()
    done = call("status", "--project", joined, "--json")
    assert clock.monotonic_s() - began_s < TIMEOUT_S
    assert done.code == 4
    assert "could not connect" in done.result["log_problem"]
    assert done.err.strip() == f"error: {done.result['log_problem']}"
    assert done.result["join"]["held_impressions"] > 0
    read = done.result["join"]["inputs"]["impressions/0"]
    assert (read["offset"] > 0, read["end"], read["lag"]) == (True, None, None)
    assert done.result["trainer"] == [{"shard": 0, "version": None, "halted": None, "lag_records": None}]
