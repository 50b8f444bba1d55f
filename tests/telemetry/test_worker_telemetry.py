"""Several workers of one job on a machine: each answers under a name of its own; a dead one's goes on."""

import os
import signal
import subprocess
import sys

import pytest
import structlog

from pipeline.configuration.project import Project
from pipeline.process.process_name import ProcessName, abandoned_names
from pipeline.telemetry import metrics, worker_metrics
from tests.support.command_line import make_shop
from tests.support.scrape import scrape, url_of

HOLD = """
import sys
from pathlib import Path
from pipeline.process.process_name import ProcessName
name = ProcessName(Path(sys.argv[1]), "samples")
print(name.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _nobody_serves():
    yield
    worker_metrics.stop_serving_worker()


@pytest.fixture
def holder(tmp_path):
    """Start another process that takes a name; returns it and the name's name."""
    begun = []

    def start(folder=tmp_path):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], text=True, **pipes)
        begun.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def served(root, settings="port = 0"):
    return Project.open(make_shop(root, {"[telemetry]\n": f"[telemetry]\n{settings}\n"}))


def test_each_process_has_a_seat_of_its_own_and_a_killed_one_gives_its_seat_back(tmp_path, holder):
    first, name = holder()
    second, other = holder()
    assert name.startswith("samples-")
    assert (name[-2:], other[-2:]) == ("-0", "-1")
    with abandoned_names(tmp_path, "samples") as free:
        assert free == []
    kill(first)
    with abandoned_names(tmp_path, "samples") as free:
        assert free == [name]
    assert holder()[1] == name
    assert second.poll() is None


def test_kinds_have_seats_apart(tmp_path):
    samples, train = ProcessName(tmp_path, "samples"), ProcessName(tmp_path, "train")
    assert samples.name.removeprefix("samples") == train.name.removeprefix("train")
    samples.release()
    train.release()


def test_worker_answers_under_its_seat_until_it_is_told_to_end(tmp_path):
    project = served(tmp_path)
    worker_metrics.serve_worker(tmp_path, "train")
    worker_metrics.serve_worker(tmp_path, "train")
    [address] = project.telemetry.glob("*.json")
    assert address.stem.startswith("train-")
    assert scrape(url_of(tmp_path, address.stem))("springtide_disk_free_bytes") > 0
    worker_metrics.stop_serving_worker()
    assert list(project.telemetry.glob("*.json")) == []


def test_addresses_of_the_dead_go_and_those_of_the_living_and_of_others_stay(tmp_path, holder):
    project = served(tmp_path)
    processes = [holder(project.telemetry) for _ in range(3)]
    names = [name for _, name in processes]
    for name in (*names, "samples-elsewhere-0", "all"):
        (project.telemetry / f"{name}.json").write_text("[]")
    kill(processes[0][0])
    kill(processes[2][0])
    worker_metrics.serve_worker(tmp_path, "samples")
    assert {path.stem for path in project.telemetry.glob("*.json")} == {*names[:2], "samples-elsewhere-0", "all"}
    assert scrape(url_of(tmp_path, names[0])).names


def test_where_no_port_is_free_a_worker_says_so_and_works_on(tmp_path):
    project = served(tmp_path, 'port = 0\nhost = "203.0.113.1"')
    with structlog.testing.capture_logs() as said:
        worker_metrics.serve_worker(tmp_path, "samples")
    assert [line["event"] for line in said] == ["this worker's metrics are not answered"]
    assert list(project.telemetry.glob("*.json")) == []


def test_off_means_no_seat_and_no_file(tmp_path):
    project = Project.open(make_shop(tmp_path))
    worker_metrics.serve_worker(tmp_path, "samples")
    assert not project.telemetry.exists()
    assert metrics.serve(project, "samples") is None
