"""Hooks: every event reaches the notices topic, webhook and executable; failures are recorded and never block."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.publish.hooks import HOOK_FAILED, ROLLBACK, VERSION_PUBLISHED, Hooks, announce
from tests.support.synthetic import project_at


@pytest.fixture
def project(tmp_path):
    return lambda **publish: project_at(tmp_path, publish=publish)


@pytest.fixture
def log(tmp_path):
    plain = project_at(tmp_path)
    log = SqliteLog(plain.logs, plain.clock)
    yield log
    log.close()


@pytest.fixture
def webhook():
    """A real HTTP server on this machine: its address and the (content type, body) of the requests it received."""
    got = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()
    thread.join()


def notices(log):
    return [json.loads(record.value) for record in log.read("notices", 0, 0)]


def program(folder, text):
    path = folder / "hook.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path.name


def test_an_event_is_a_cloud_event_in_the_notices_topic(project, log):
    announce(project(), log, VERSION_PUBLISHED, "g0/s0-of-1/42/full", {"rows": 3})
    event = JSONFormat().read(CloudEvent, log.read("notices", 0, 0)[0].value)
    assert event.get_type() == "springtide.version.published"
    assert event.get_source() == "/springtide/model"
    assert event.get_subject() == "g0/s0-of-1/42/full"
    assert event.get_specversion() == "1.0"
    assert event.get_time().timestamp() == 1_700_000_000
    assert event.get_data() == {"rows": 3}


def test_an_event_announced_again_has_the_same_id(project, log):
    for _ in range(2):
        announce(project(), log, ROLLBACK, "rollback/1", {})
    first, second = notices(log)
    assert first["id"] == second["id"]


def test_a_webhook_gets_every_event_in_order(project, log, webhook):
    address, got = webhook
    hooks = Hooks(project(webhook=address), log)
    for number in range(5):
        hooks.announce(VERSION_PUBLISHED, str(number), {"number": number})
    hooks.close()
    assert [json.loads(body)["data"]["number"] for _, body in got] == list(range(5))
    assert got[0][0] == "application/cloudevents+json"
    assert hooks.failures == 0


def test_an_executable_gets_the_event_on_its_stdin(project, log, tmp_path):
    name = program(tmp_path, "cat > got.json")
    announce(project(executable=name), log, ROLLBACK, "rollback/1", {"rows": 3})
    assert json.loads((tmp_path / "got.json").read_text())["data"] == {"rows": 3}


def test_an_error_response_of_a_webhook_is_recorded(project, log, webhook):
    hooks = Hooks(project(webhook=webhook[0] + "/broken"), log)
    hooks.announce(VERSION_PUBLISHED, "42", {})
    hooks.close()
    assert hooks.failures == 1
    failed = notices(log)[1]
    assert failed["type"] == HOOK_FAILED
    assert "500" in failed["data"]["problem"]


def test_an_unavailable_webhook_is_recorded(project, log, webhook):
    address = "http://127.0.0.1:1/"
    announce(project(webhook=address), log, VERSION_PUBLISHED, "42", {})
    assert notices(log)[1]["data"]["hook"] == address


@pytest.mark.parametrize(("text", "problem"), [("echo no disk >&2; exit 3", "ended with 3: no disk")])
def test_a_failing_executable_is_recorded_with_its_stderr(project, log, tmp_path, text, problem):
    announce(project(executable=program(tmp_path, text)), log, VERSION_PUBLISHED, "42", {})
    assert problem in notices(log)[1]["data"]["problem"]


def test_a_missing_executable_is_recorded(project, log):
    announce(project(executable="nowhere.sh"), log, VERSION_PUBLISHED, "42", {})
    assert "nowhere.sh" in notices(log)[1]["data"]["problem"]


def test_the_executable_gets_its_event_after_a_failing_webhook(project, log, tmp_path):
    name = program(tmp_path, "cat > got.json")
    announce(project(webhook="http://127.0.0.1:1/", executable=name), log, VERSION_PUBLISHED, "42", {})
    assert (tmp_path / "got.json").exists()


@pytest.fixture
def slow(tmp_path):
    """The name of an executable that blocks on each event until `tmp_path / "go"` exists."""
    yield program(tmp_path, "cat >> got.json; until [ -e go ]; do sleep 0.01; done")
    (tmp_path / "go").touch()


def test_close_does_not_wait_for_slow_hooks_and_records_dropped_events(project, log, slow):
    hooks = Hooks(project(executable=slow), log)
    for number in range(300):
        hooks.announce(VERSION_PUBLISHED, str(number), {})
    hooks.close(timeout_s=0.05)
    *announced, dropped = notices(log)
    assert len(announced) == hooks.failures == 300
    assert dropped["type"] == HOOK_FAILED
    assert dropped["data"]["event"] == announced[0]["id"]
    assert dropped["data"]["problem"].startswith("300 events dropped")


def test_a_dropped_event_is_not_delivered_when_its_hook_ends(project, log, tmp_path, slow):
    hooks = Hooks(project(executable=slow), log)
    hooks.announce(VERSION_PUBLISHED, "dropped", {"number": 0})
    hooks.close(timeout_s=0.05)
    hooks.announce(VERSION_PUBLISHED, "later", {"number": 1})
    (tmp_path / "go").touch()
    hooks.close()
    assert [notice["type"] for notice in notices(log)] == [VERSION_PUBLISHED, HOOK_FAILED, VERSION_PUBLISHED]
    assert (tmp_path / "got.json").read_text().count('"number": 1') == 1
