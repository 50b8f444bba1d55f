"""Processes of a cluster: found by their record, stopped reliably, never mistaken for others; errors without Java."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.java.jars import jars_folder
from pipeline.cluster.ports import free_port
from pipeline.cluster.process import RECORD, Process, descendants
from pipeline.configuration.deployment.services import Cluster
from pipeline.configuration.environment import cache_folder
from pipeline.errors import ClusterError, InputError
from pipeline.process.clock import SystemClock
from tests.support.command.command_line import call, make_shop, springtide
from tests.support.command.ports import free_port_range

LONG = ["sleep", "600"]
STOP_TIMEOUT_S = 5.0


@pytest.fixture
def process(tmp_path):
    made = Process("kafka", tmp_path, SystemClock())
    yield made
    made.stop(STOP_TIMEOUT_S)
    LocalCluster(Cluster(), tmp_path).down()


@pytest.fixture
def stranger():
    """A process of no cluster."""
    child = subprocess.Popen(LONG)
    yield child
    child.kill()
    child.wait()


def rewrite(process, **changed):
    """Change the record of `process`, as a reboot or a reused pid would."""
    record = RECORD.read(process.record)
    process.record.write_bytes(RECORD.encode({**record, **changed}))


def test_a_process_is_found_again_by_its_record(process, tmp_path):
    started = process.start(LONG, 9092)
    assert Process("kafka", tmp_path, SystemClock()).running() == started
    process.stop(STOP_TIMEOUT_S)
    assert process.running() is None
    assert not process.record.exists()


def test_the_recorded_start_is_the_kernels_start_time_of_the_process(process):
    started = process.start(LONG, 9092)
    stat = Path(f"/proc/{started.pid}/stat").read_text()
    assert started.start_ticks == int(stat.rpartition(")")[2].split()[19])


FIRST_THREAD_EXITS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print("started", flush=True)
ctypes.CDLL(None).pthread_exit(0)
"""


def test_a_process_whose_first_thread_has_ended_still_runs(process):
    started = process.start([sys.executable, "-c", FIRST_THREAD_EXITS], 9092)
    while psutil.Process(started.pid).status() != psutil.STATUS_ZOMBIE:
        process.clock.wait(0.01)
    assert process.running() == started
    process.kill()
    assert process.running() is None


def test_a_reused_pid_is_never_killed(process, stranger):
    process.start(LONG, 9092)
    process.kill()
    rewrite(process, pid=stranger.pid, start_ticks=1)
    assert process.running() is None
    process.kill()
    process.stop(STOP_TIMEOUT_S)
    assert stranger.poll() is None


def test_the_exit_status_of_an_unrelated_child_is_left_to_its_parent(process):
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    process.start(LONG, 9092)
    process.kill()
    rewrite(process, pid=child.pid, start_ticks=1)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.running() is None
    assert child.wait() == 7


def test_a_record_with_a_flipped_bit_is_none_and_the_process_is_ended_all_the_same(process, tmp_path):
    started = process.start(LONG, 9092)
    content = process.record.read_bytes()
    for at in range(len(content)):
        process.record.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert process.running() in (None, started)
    LocalCluster(Cluster(), tmp_path).down()
    assert not psutil.pid_exists(started.pid) or psutil.Process(started.pid).status() == psutil.STATUS_ZOMBIE


def test_a_record_of_an_earlier_release_is_read(process):
    started = process.start(LONG, 9092)
    process.record.write_text(json.dumps(asdict(started)))
    assert process.running() == started


def test_a_record_from_before_a_reboot_is_ignored(process):
    started = process.start(LONG, 9092)
    rewrite(process, boot="another")
    assert process.running() is None
    rewrite(process, boot=started.boot)
    assert process.running() == started


@pytest.mark.parametrize("text", ["", "{}", '{"pid": 1'])
def test_a_malformed_record_is_an_absent_process(process, text):
    process.record.parent.mkdir()
    process.record.write_text(text)
    assert process.running() is None


def test_a_process_that_ignores_sigterm_is_killed(process, tmp_path):
    ready = tmp_path / "ready"
    started = process.start(["sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 1; done"], 9092)
    while not ready.exists():
        process.clock.wait(0.01)
    process.stop(timeout_s=0.3)
    assert process.running() is None
    assert started.pid not in descendants(tmp_path)


def test_children_of_a_killed_process_remain_until_down(process, tmp_path):
    started = process.start(["sh", "-c", "sleep 600 & echo $!; wait"], 9092)
    while not (text := process.output.read_text()):
        process.clock.wait(0.01)
    child = int(text)
    process.kill()
    assert descendants(tmp_path) == [child]
    assert started.pid != child
    assert LocalCluster(Cluster(), tmp_path).down() == []
    assert descendants(tmp_path) == []
    assert not (tmp_path / "run").exists()


def test_the_last_error_is_from_the_last_start(process):
    process.log.parent.mkdir(parents=True)
    process.log.write_text("ERROR of long ago\n")
    process.start(["sh", "-c", f"echo fine >> {process.log}; echo output"], 9092)
    while process.running():
        process.clock.wait(0.01)
    assert process.last_error() == "output"
    process.start(["sh", "-c", f"echo ERROR out of disk >> {process.log}; echo output"], 9092)
    while process.running():
        process.clock.wait(0.01)
    assert process.last_error() == "ERROR out of disk"


def test_down_stops_processes_that_are_no_longer_in_the_settings(tmp_path):
    Process("taskmanager-3", tmp_path, SystemClock()).start(LONG, 1)
    assert LocalCluster(Cluster(taskmanagers=1), tmp_path).down() == ["taskmanager-3"]


def test_wiping_leaves_files_of_others(tmp_path):
    folder = tmp_path / "cluster"
    for name in ("kafka", "logs", "photos"):
        (folder / name).mkdir(parents=True)
    LocalCluster(Cluster(), folder).down(wipe=True)
    assert os.listdir(folder) == ["photos"]


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"process zookeeper does not exist\. known: kafka, jobmanager"):
        LocalCluster(Cluster(), tmp_path).up(["zookeeper"])


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ClusterError, match=f"port {port}, which kafka needs, is already in use"):
            LocalCluster(Cluster(kafka_port=free_port(), kafka_controller_port=port), tmp_path).up(["kafka"])


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A project with a cluster on free ports, on a machine without a single program."""
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "programs").mkdir()
    first = free_port_range(4)
    names = ("kafka_port", "kafka_controller_port", "flink_rest_port", "flink_rpc_port")
    table = "".join(f"{name} = {first + i}\n" for i, name in enumerate(names))
    project = make_shop(tmp_path / "shop")
    with (project / "springtide.toml").open("a") as file:
        file.write(f"\n[cluster]\n{table}")
    return project


def install_java(tmp_path, script):
    """A program called java that runs `script`, and a jars folder as if Maven had filled it."""
    java = tmp_path / "programs" / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    jars_folder("kafka", {}, cache_folder()).mkdir(parents=True)


def test_without_maven_the_error_names_the_remedy(shop):
    done = call("cluster", "up", "--project", shop, "--json")
    assert done.code == done.result["exit_code"] == 12
    assert "mvn is not on PATH: the cluster needs Java 17 and Maven. hint: sudo .ci/install-java" in done.err


def test_without_java_the_error_names_the_remedy(shop):
    jars_folder("kafka", {}, cache_folder()).mkdir(parents=True)
    done = call("cluster", "up", "--project", shop)
    assert done.code == 12
    assert "java is not on PATH: the cluster needs Java 17 and Maven. hint: sudo .ci/install-java" in done.err


@pytest.mark.parametrize(("version", "fits"), [("1.8.0_402", False), ("16.0.2", False), ("17", True), ("21.0.5", True)])
def test_an_old_java_is_refused(shop, tmp_path, version, fits):
    install_java(tmp_path, f"""[ "$1" = -version ] && echo 'openjdk version "{version}"' >&2; exit 1""")
    done = call("cluster", "up", "--project", shop)
    assert done.code == 12
    assert ("needs Java 17 or newer" in done.err) is not fits


def test_a_process_that_ends_at_once_is_reported_with_its_last_output(shop, tmp_path):
    ends = """if [ "$1" = -version ]; then echo 'openjdk version "17"' >&2; else echo no memory is left; exit 1; fi"""
    install_java(tmp_path, ends)
    (shop / "state" / "cluster" / "kafka" / "data").mkdir(parents=True)
    done = call("cluster", "up", "kafka", "--project", shop)
    assert done.code == 12
    assert "kafka has ended: no memory is left. hint: see " in done.err


def test_a_data_folder_that_cannot_be_formatted_does_not_exist(shop, tmp_path):
    install_java(
        tmp_path, """[ "$1" = -version ] && echo 'openjdk version "17"' >&2 || { echo disk is full; exit 1; }"""
    )
    done = call("cluster", "up", "kafka", "--project", shop)
    assert done.code == 12
    assert "cannot be formatted: disk is full. hint: see " in done.err
    assert not (shop / "state" / "cluster" / "kafka" / "data").exists()


def test_a_cluster_that_was_never_started_is_absent_and_down_succeeds(shop):
    status = springtide(shop, "cluster", "status")
    assert status["up"] is False
    assert {row["state"] for row in status["processes"]} == {"absent"}
    assert status["kafka"]["available"] is status["flink"]["available"] is False
    assert springtide(shop, "cluster", "down") == {"stopped": [], "wiped": False}
    planned = springtide(shop, "cluster", "up", "--dry-run")
    assert planned == {"would_start": ["kafka", "jobmanager", "taskmanager-1"]}
    assert not (shop / "state" / "cluster").exists()
