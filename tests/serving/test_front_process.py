"""The front as a process of its own: it is supervised, it counts, and it ends with the process that started it."""

import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from structlog.testing import capture_logs

from pipeline.errors import InputError
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.process.clock import SystemClock
from pipeline.serving.front.process import FrontSettings, start_process
from pipeline.serving.http import ReplicaServer
from pipeline.serving.replica import Replica
from tests.support.command.scrape import parsed
from tests.support.synthetic.trainer import project_at
from tests.support.world.served_model import INSTANCE, PREDICT, connect, received, request

WITHIN_S = 20


class Started:
    """Starts fronts, and remembers them."""

    def __init__(self):
        self.fronts = []

    def __call__(self, settings, *sockets):
        self.fronts.append(start_process(settings, *sockets))
        return self.fronts[-1]


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    project = project_at(tmp_path_factory.mktemp("front"), serving={"port": 0})
    log = SqliteLog(project.logs, project.clock)
    yield Replica(project, log)
    log.close()


@pytest.fixture(scope="module")
def config(replica, tmp_path_factory):
    return project_at(tmp_path_factory.mktemp("config"), serving={"port": 0}).config


def test_a_front_that_was_killed_is_replaced_and_its_port_stays(replica, config):
    started = Started()
    with capture_logs() as logs, ReplicaServer(replica, config, SystemClock(), started) as server:
        assert request(server, "GET", "/healthz")[0] == 200
        [first] = started.fronts
        first.kill()
        first.wait(WITHIN_S)
        assert request(server, "GET", "/healthz")[0] == 200
        _, text = request(server, "GET", "/metrics")
    assert len(started.fronts) == 2
    assert {"exit_code": -signal.SIGKILL, "log_level": "error", "event": "front ended, another one is started"} in logs
    assert parsed(text.decode())("springtide_http_connections") >= 1


def test_predictions_before_the_first_version_are_refused_by_the_process_that_predicts(replica, config):
    with ReplicaServer(replica, config, SystemClock()) as server:
        before = parsed(request(server, "GET", "/metrics")[1].decode())
        status, content = request(server, "POST", PREDICT, {"instances": [INSTANCE]})
        large = request(server, "POST", PREDICT, {"instances": [INSTANCE] * 1_000})
        ready = request(server, "GET", "/readyz")[0]
        after = parsed(request(server, "GET", "/metrics")[1].decode())
    assert (status, large[0], ready) == (503, 503, 503)
    assert "no version yet" in json.loads(content)["error"]
    name = "springtide_http_requests_total"
    assert after(name, status="503") == (before(name, status="503") or 0) + 3


def test_a_signal_to_the_group_of_processes_leaves_the_end_to_the_process_that_predicts(replica, config):
    started = Started()
    with ReplicaServer(replica, config, SystemClock(), started) as server:
        half = connect(server)
        half.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert request(server, "GET", "/healthz")[0] == 200
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(started.fronts[0].pid, number)
        assert request(server, "GET", "/healthz")[0] == 200
    assert b" 503 " in received(half)
    half.close()
    assert [front.returncode for front in started.fronts] == [0]


def test_a_front_ends_with_the_process_that_started_it(config):
    listening = socket.create_server(("127.0.0.1", 0))
    (quick, its_quick), (bulk, its_bulk) = socket.socketpair(), socket.socketpair()
    front = start_process(FrontSettings(name="m", serving=config.serving), listening, its_quick, its_bulk)
    for end in (its_quick, its_bulk, quick, bulk):
        end.close()
    assert front.wait(WITHIN_S) == 0
    listening.close()


def test_a_front_imports_neither_tensorflow_nor_arrow():
    code = "import sys, pipeline.serving.front.process; print({'tensorflow', 'pyarrow', 'keras'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_front_that_cannot_start_is_an_error(replica, config):
    def fails(*_):
        raise OSError("no memory")

    with capture_logs() as logs, pytest.raises(InputError, match="cannot start"):
        ReplicaServer(replica, config, SystemClock(), fails).__enter__()
    assert logs[0]["problem"] == "no memory"


def test_a_server_stops_while_its_front_does_not_respond(replica, config):
    started = Started()
    with ReplicaServer(replica, config, SystemClock(), started, stop_s=0.1):
        psutil.Process(started.fronts[0].pid).suspend()
    assert started.fronts[0].returncode == -signal.SIGKILL
