"""Hooks: every event reaches the notices topic, webhook and executable; failures are recorded and never block."""

import json
import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from pipeline.errors import ConfigError
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.process.clock import SystemClock
from pipeline.publish.hooks.notices import HOOK_FAILED, ROLLBACK, VERSION_PUBLISHED, Hooks, announce
from tests.support.synthetic.trainer import project_at


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
    assert notices(log)[1]["data"]["hook"] == "http://127.0.0.1:1"


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
    """The name of an executable that blocks on each event until `tmp_path / "go"` exists, or the folder does not."""
    yield program(tmp_path, "cat >> got.json; until [ -e go ] || [ ! -e got.json ]; do sleep 0.01; done")
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
    assert dropped["data"]["problem"].startswith("300 notices dropped")


def test_a_dropped_event_is_not_delivered_when_its_hook_ends(project, log, tmp_path, slow):
    hooks = Hooks(project(executable=slow), log)
    hooks.announce(VERSION_PUBLISHED, "dropped", {"number": 0})
    hooks.close(timeout_s=0.05)
    hooks.announce(VERSION_PUBLISHED, "later", {"number": 1})
    (tmp_path / "go").touch()
    hooks.close()
    assert [notice["type"] for notice in notices(log)] == [VERSION_PUBLISHED, HOOK_FAILED, VERSION_PUBLISHED]
    assert (tmp_path / "got.json").read_text().count('"number": 1') == 1


@contextmanager
def server(*answers):
    """A TCP server whose n-th connection gets the n-th answer, and later ones the last; yields port and requests.

    An answer is bytes, or a function of the connection.
    """
    listener, requests = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                answer = answers[min(len(requests), len(answers) - 1)]
                try:
                    requests.append(read_request(connection))
                    answer(connection) if callable(answer) else connection.sendall(answer)
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def read_request(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(65_536)
        if not part:
            raise ConnectionError
        head += part
    head, _, body = head.partition(b"\r\n\r\n")
    (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65_536)
    return head


def drip(connection):
    """An answer without an end: ends when the client closes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    connection.settimeout(0.02)
    while True:
        connection.sendall(b"X-1: y\r\n")
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            pass


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def endless_body(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")


OK = b"HTTP/1.1 204 No Content\r\n\r\n"
STATUS = "HTTP/1.1 {} x\r\nContent-Length: 0\r\n{}\r\n"
ONCE = {"attempts": 1, "timeout_s": 30}
SHORT = {"attempts": 1, "timeout_s": 1.0}
"""For answers that never end."""


def status(code, *headers):
    return STATUS.format(code, "".join(f"{header}\r\n" for header in headers)).encode()


def announced(project, log, *subjects):
    """Announce events and close; returns the problems of the failures."""
    hooks = Hooks(project, log)
    for subject in subjects:
        hooks.announce(VERSION_PUBLISHED, subject, {})
    hooks.close()
    return [notice["data"]["problem"] for notice in notices(log) if notice["type"] == HOOK_FAILED]


@pytest.mark.parametrize(
    "answer",
    [
        b"this is not http\r\n\r\n",
        b"",
        b"HTTP/1.1 2xx Fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"\x16\x03\x01\x00\x00",
        reset,
        drip,
    ],
)
def test_an_answer_that_is_not_http_fails_one_event_and_not_the_next(project, log, answer):
    with server(answer, OK) as (port, requests):
        delivery = SHORT if answer is drip else ONCE
        problems = announced(project(webhook=f"http://127.0.0.1:{port}/", hooks=delivery), log, "1", "2")
        assert len(problems) == 1
        assert len(requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        endless_body,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(500)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncut",
    ],
)
def test_an_event_is_delivered_once_a_good_status_has_arrived_whatever_follows(project, log, answer):
    with server(answer) as (port, requests):
        assert announced(project(webhook=f"http://127.0.0.1:{port}/", hooks=ONCE), log, "1") == []
        assert len(requests) == 1


def test_a_webhook_that_drips_does_not_delay_the_executable(project, log, tmp_path):
    name = program(tmp_path, "cat >> got.json")
    with server(drip) as (port, _):
        problems = announced(project(webhook=f"http://127.0.0.1:{port}/", executable=name, hooks=SHORT), log, "1", "2")
    assert problems == ["no answer within 1 s"] * 2
    assert (tmp_path / "got.json").read_text().count("specversion") == 2


def test_an_error_that_may_pass_is_retried(project, log):
    with server(status(503), status(429), OK) as (port, requests):
        configured = project(webhook=f"http://127.0.0.1:{port}/", hooks={"retry_after_s": 1.0})
        assert announced(configured, log, "1") == []
    assert len(requests) == 3
    assert configured.clock.now_ms() == 1_700_000_003_000  # 1 s, then 2 s


def test_attempts_are_bounded_and_counted(project, log):
    with server(status(500)) as (port, requests):
        assert announced(project(webhook=f"http://127.0.0.1:{port}/", hooks={"attempts": 2}), log, "1") == [
            "HTTP status 500 (after 2 attempts)"
        ]
    assert len(requests) == 2


@pytest.mark.parametrize("code", [400, 401, 404, 410])
def test_a_refusal_is_final(project, log, code):
    with server(status(code), OK) as (port, requests):
        assert announced(project(webhook=f"http://127.0.0.1:{port}/"), log, "1") == [f"HTTP status {code}"]
    assert len(requests) == 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://169.254.169.254/meta-data", "//", "\x00", "/x"])
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(project, log, target, code):
    with server(status(code, f"Location: {target}"), OK) as (port, requests):
        problems = announced(project(webhook=f"http://127.0.0.1:{port}/", hooks=ONCE), log, "1")
    assert len(problems) == len(requests) == 1
    assert "meta-data" not in problems[0]


def test_redirects_that_repeat_the_post_are_followed_if_asked(project, log):
    with server(status(307, "Location: /b"), status(308, "Location: /c"), OK) as (port, requests):
        configured = project(webhook=f"http://127.0.0.1:{port}/a", hooks={"redirects": 2})
        assert announced(configured, log, "1") == []
    assert [head.split()[:2] for head in requests] == [[b"POST", path] for path in (b"/a", b"/b", b"/c")]


def test_more_redirects_than_allowed_and_other_kinds_fail(project, log):
    with server(status(307, "Location: /b")) as (port, requests):
        configured = project(webhook=f"http://127.0.0.1:{port}/a", hooks={"redirects": 3, "attempts": 1})
        assert "HTTP status 307" in announced(configured, log, "1")[0]
        assert len(requests) == 4
    with server(status(302, "Location: /b"), OK) as (port, requests):
        configured = project(webhook=f"http://127.0.0.1:{port}/a", hooks={"redirects": 3})
        assert "HTTP status 302" in announced(configured, log, "2")[-1]
        assert len(requests) == 1


SECRETS = ("hunter22", "T0KEN", "s3cret")


@pytest.mark.parametrize(
    "answer", [b"no http\r\n\r\n", status(500), status(302, "Location: /T0KEN?hook=s3cret"), reset, drip]
)
def test_secrets_of_the_url_are_neither_announced_nor_logged(project, log, answer, capfd, caplog):
    with server(answer) as (port, requests), caplog.at_level("DEBUG"):
        url = f"http://user:hunter22@127.0.0.1:{port}/T0KEN?hook=s3cret"
        configured = project(webhook=url, hooks=SHORT if answer is drip else ONCE)
        problems = announced(configured, log, "1")
    assert b"Authorization: Basic" in requests[0]
    printed = capfd.readouterr()
    shown = "".join([*problems, json.dumps(notices(log)), *printed, caplog.text, repr(configured.config)])
    assert f"http://127.0.0.1:{port}/…" in printed.out + printed.err
    assert not any(secret in shown for secret in SECRETS)


@pytest.mark.parametrize(
    "address", ["ftp://user:hunter22@x/", "http://", "x", "http://[::1", "http://a:99999/", "http://a b/", 5, {"x": 1}]
)
def test_a_wrong_url_is_refused_without_showing_it(project, address):
    with pytest.raises(ConfigError, match=r"publish\.webhook") as refused:
        project(webhook=address)
    assert "hunter22" not in str(refused.value)


def test_the_url_may_lie_in_a_file(project, log, tmp_path):
    with server(OK) as (port, requests):
        (tmp_path / "url.txt").write_text(f"http://127.0.0.1:{port}/T0KEN\n")
        assert announced(project(webhook={"file": "url.txt"}), log, "1") == []
    assert requests[0].startswith(b"POST /T0KEN ")


def test_a_file_without_a_url_is_refused_without_showing_it(project, log, tmp_path):
    (tmp_path / "url.txt").write_text("hunter22")
    with pytest.raises(ConfigError, match="http or https URL") as refused:
        Hooks(project(webhook={"file": "url.txt"}), log)
    assert "hunter22" not in str(refused.value)


def test_an_https_address_that_does_not_speak_tls_is_a_failure(project, log):
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: listener.accept()[0].sendall(b"no tls here"), daemon=True)
    thread.start()
    address = f"https://127.0.0.1:{listener.getsockname()[1]}/"
    assert len(announced(project(webhook=address, hooks=ONCE), log, "1")) == 1
    listener.close()


def test_a_host_without_an_address_is_a_failure(project, log):
    address = "http://nowhere.invalid/"
    assert len(announced(project(webhook=address, hooks={"attempts": 1}), log, "1")) == 1


def impatient(project, **publish):
    return replace(project(hooks={"timeout_s": 0.3, "attempts": 1}, **publish), clock=SystemClock())


@pytest.mark.parametrize("text", ["sleep 100", "sleep 100 & wait", "exec 2>&-; sleep 100", "trap '' TERM; sleep 100"])
def test_an_executable_that_hangs_is_killed_with_its_children(project, log, tmp_path, text):
    configured = impatient(project, executable=program(tmp_path, text))
    assert announced(configured, log, "1") == ["killed: it did not end within 0.3 s"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kill -9 $$", "killed by signal 9"),
        ("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1", "end"),
        ("printf '\\033[31m\\377' >&2; exit 1", "ended with 1: [31m�"),
        ("head -c 3000000 /dev/zero; exit 4", "ended with 4"),
    ],
)
def test_of_what_a_failing_executable_prints_the_end_is_kept(project, log, tmp_path, text, problem):
    configured = project(executable=program(tmp_path, text), hooks={"attempts": 1})
    (found,) = announced(configured, log, "1")
    assert found.endswith(problem)
    assert len(found) < 600


@pytest.mark.parametrize("text", ["exit 0", "yes >&2 & yes & exit 0", "sleep 100 & exit 0"])
def test_an_executable_is_done_when_it_ends_whatever_it_leaves_behind(project, log, tmp_path, text):
    wrapped = f"echo $$ > group; {text}"
    try:
        assert announced(project(executable=program(tmp_path, wrapped)), log, "1") == []
    finally:
        with suppress(ProcessLookupError):
            os.killpg(int((tmp_path / "group").read_text()), signal.SIGKILL)


def test_a_folder_as_executable_is_a_failure(project, log, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "cannot be run" in announced(project(executable="folder"), log, "1")[0]


def test_events_beyond_the_queue_fail_at_once(project, log, slow, tmp_path):
    configured = project(executable=slow, hooks={"queue_events": 2, "timeout_s": 60})
    hooks = Hooks(configured, log)
    for number in range(4):
        hooks.announce(VERSION_PUBLISHED, str(number), {})
    (tmp_path / "go").touch()
    hooks.close()
    assert [n["data"]["event"][-1] for n in notices(log) if n["type"] == HOOK_FAILED] == ["2", "3"]


@pytest.mark.parametrize("setting", [{"timeout_s": 0}, {"attempts": 0}, {"redirects": -1}, {"queue_events": 0}])
def test_settings_outside_their_bounds_are_refused(project, setting):
    with pytest.raises(ConfigError, match=r"publish\.hooks"):
        project(hooks=setting)
