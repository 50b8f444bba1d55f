"""Several workers of one job on a machine: each exports under its process name; a replacement reuses a killed one's."""

import os
import signal
import subprocess
import sys

import pytest
import structlog

from pipeline.configuration.project import Project
from pipeline.process.process_name import ProcessName, abandoned_names
from pipeline.telemetry.exporter import start_exporter
from pipeline.telemetry.worker_exporter import start_worker_exporter, stop_worker_exporter
from tests.support.command.command_line import make_shop
from tests.support.command.scrape import scrape, url_of

HOLD = """
import sys
from pathlib import Path
from pipeline.process.process_name import ProcessName
name = ProcessName(Path(sys.argv[1]), "samples")
print(name.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _stop_exporter():
    yield
    stop_worker_exporter()


@pytest.fixture
def holder(tmp_path):
    """A function that starts another process with a process name; returns the process and its name."""
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


def test_each_process_has_a_unique_name_and_a_killed_process_releases_its_name(tmp_path, holder):
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


def test_kinds_have_separate_names(tmp_path):
    samples, train = ProcessName(tmp_path, "samples"), ProcessName(tmp_path, "train")
    assert samples.name.removeprefix("samples") == train.name.removeprefix("train")
    samples.release()
    train.release()


def test_a_worker_exports_under_its_process_name_until_it_is_stopped(tmp_path):
    project = served(tmp_path)
    start_worker_exporter(tmp_path, "train")
    start_worker_exporter(tmp_path, "train")
    [address] = project.telemetry.glob("*.json")
    assert address.stem.startswith("train-")
    assert scrape(url_of(tmp_path, address.stem))("springtide_disk_free_bytes") > 0
    stop_worker_exporter()
    assert list(project.telemetry.glob("*.json")) == []


def test_target_files_of_killed_workers_are_removed_and_all_others_stay(tmp_path, holder):
    project = served(tmp_path)
    processes = [holder(project.telemetry) for _ in range(3)]
    names = [name for _, name in processes]
    for name in (*names, "samples-elsewhere-0", "all"):
        (project.telemetry / f"{name}.json").write_text("[]")
    kill(processes[0][0])
    kill(processes[2][0])
    start_worker_exporter(tmp_path, "samples")
    assert {path.stem for path in project.telemetry.glob("*.json")} == {*names[:2], "samples-elsewhere-0", "all"}
    assert scrape(url_of(tmp_path, names[0])).names


def test_a_worker_without_a_free_port_logs_a_warning_and_continues(tmp_path):
    project = served(tmp_path, 'port = 0\nhost = "203.0.113.1"')
    with structlog.testing.capture_logs() as logged:
        start_worker_exporter(tmp_path, "samples")
    assert [line["event"] for line in logged] == ["metrics of this worker are not exported"]
    assert list(project.telemetry.glob("*.json")) == []


def test_off_means_no_process_name_and_no_file(tmp_path):
    project = Project.open(make_shop(tmp_path))
    start_worker_exporter(tmp_path, "samples")
    assert not project.telemetry.exists()
    assert start_exporter(project, "samples") is None
