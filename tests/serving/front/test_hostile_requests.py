"""Hostile and odd requests over real sockets: each has the right response, is counted, and stops no other client."""

import json
import resource
import socket
import struct

import pytest

from pipeline.serving.front.connections import allow_files
from pipeline.serving.http import ReplicaServer
from tests.support.command.scrape import parsed
from tests.support.manual_clock import ManualClock
from tests.support.world.served_model import INSTANCE, PREDICT, connect, exchange, post, received, request, served_model

HEAD = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n".encode()
ONE = json.dumps({"instances": [INSTANCE]}).encode()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    bounds = {"max_body_bytes": 100_000, "max_instances": 2_000, "max_header_bytes": 4_096, "max_depth": 8}
    with served_model(tmp_path_factory.mktemp("hostile"), serving=bounds) as made:
        yield made


@pytest.fixture
def server(model):
    """Checks afterwards that other clients are served."""
    yield model.server
    assert request(model.server, "POST", PREDICT, ONE)[0] == 200


def statuses(answer):
    """The status of each response in what a server sent."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def error_of(answer):
    return json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]


def counted(server, status):
    return parsed(request(server, "GET", "/metrics")[1].decode())("springtide_http_requests_total", status=status) or 0


@pytest.mark.parametrize(
    ("sent", "status", "problem"),
    [
        (post(b'{"instances":' + b"[" * 1_000 + b"]" * 1_000 + b"}"), 400, "nested 1001 deep"),
        (post(b'{"instances":[' + b"{}," * 3_000 + b"{}]}"), 413, "3001 instances, at most 2000"),
        (post(b"x" * 200_000), 413, "200000 bytes, at most 100000"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n", 400, "not valid http"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 50 + b"\r\n\r\n", 400, "not valid http"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400, "not valid http"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "not valid http"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", 431, "not valid http"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: 1\r\n" * 5_000 + b"\r\n", 431, "not valid http"),
        (b"GET /" + b"a" * 70_000, 431, "not valid http"),
        (b"GET / HTTP/9999.1\r\n\r\n", 400, "not valid http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, 400, "not valid http"),
        (post(ONE, b"Content-Encoding: gzip"), 415, "gzip is not supported"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_request_beyond_a_bound_or_without_sense_is_refused_and_counted(server, sent, status, problem):
    before = counted(server, str(status))
    answer = exchange(server, sent)
    assert statuses(answer) == [status]
    assert problem in error_of(answer)
    assert counted(server, str(status)) == before + 1


def test_a_body_of_unknown_length_is_received_up_to_its_bound(server):
    chunked = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert statuses(exchange(server, chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(ONE), ONE))) == [200]
    answer = exchange(
        server, chunked + b"ffff\r\n" + b" " * 0xFFFF + b"\r\nffff\r\n" + b" " * 0xFFFF + b"\r\n0\r\n\r\n"
    )
    assert statuses(answer) == [413]


@pytest.mark.parametrize("target", [f"POST {PREDICT}", "GET /metrics", "GET /x"])
def test_a_body_with_two_lengths_is_refused_and_nothing_behind_it_is_read(server, target):
    two = f"{target} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    answer = exchange(server, two + b"0\r\n\r\n" + post(ONE))
    assert statuses(answer) == [400]
    assert "content-length and transfer-encoding" in error_of(answer)
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/metrics?x=1", 200),
        ("GET", "/v1/models/model?x=1", 200),
        ("HEAD", "/metrics", 200),
        ("HEAD", "/v1/models/model", 200),
        ("GET", "http://x/v1/models/model", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("HEAD", "/readyz", 200),
        ("HEAD", "/x", 404),
        ("OPTIONS", "*", 404),
        ("GET", "/v1/models/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "//x/v1/models/model", 404),
        ("GET", "/a%0d%0aSet-Cookie:x", 404),
        ("GET", "http://[/", 404),
        ("DELETE", "/v1/models/model", 405),
        ("PUT", PREDICT, 405),
        ("GET", PREDICT, 405),
        ("HEAD", PREDICT, 405),
        ("POST", "/metrics", 405),
        ("POST", "/healthz", 405),
    ],
)
def test_a_method_and_a_path_have_the_right_status(server, method, path, status):
    answer = exchange(server, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert statuses(answer) == [status]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (b"allow: " in head) == (status == 405)
    assert (body == b"") == (method == "HEAD")


def test_the_body_of_a_get_is_not_the_next_request(server):
    unwanted = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    first = b"GET /v1/models/model HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(unwanted)
    second = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = exchange(server, first + unwanted + second)
    assert statuses(answer) == [200, 200]
    assert b"smuggled" not in answer


def test_pipelined_requests_each_have_a_response(server):
    answer = exchange(
        server, post(ONE, close=False) * 100 + b"GET /readyz HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n"
    )
    assert statuses(answer) == [200] * 101


def test_a_client_that_waits_for_100_continue_gets_it_at_once(server):
    with connect(server) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(ONE))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")


def test_a_client_that_waits_for_100_continue_with_too_large_a_body_is_refused_before_it_sends_it(server):
    sent = post(b"x" * 200_000, b"Expect: 100-continue").partition(b"xxx")[0]
    assert statuses(exchange(server, sent)) == [413]


def test_a_client_that_finishes_sending_gets_its_responses(server):
    with connect(server) as connection:
        connection.sendall(post(ONE, close=False) * 3)
        connection.shutdown(socket.SHUT_WR)
        assert statuses(received(connection)) == [200, 200, 200]


@pytest.mark.parametrize("sent", [post(ONE)[:-5], post(ONE)[:60], b"GE"])
def test_a_client_that_finishes_within_a_request_is_refused(server, sent):
    with connect(server) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert statuses(received(connection)) == [400]


def test_a_client_that_resets_its_connection_harms_nobody(server):
    for sent in (post(ONE), post(ONE)[:-5], b"GE", b""):
        connection = connect(server)
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("NaN", "instance 1, column price: got nan"),
        ("-Infinity", "instance 1, column price: got -inf"),
        ("1e400", "instance 1, column price: got inf"),
        ("1e39", "instance 1, column price: got 1e+39, wanted -3.40282e+38 to 3.40282e+38"),
        ("-1e39", "instance 1, column price: got -1e+39, wanted -3.40282e+38 to 3.40282e+38"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_instance_and_column(server, value, problem):
    body = f'{{"instances": [{{"price": 1.5}}, {{"price": {value}}}]}}'.encode()
    status, content = request(server, "POST", PREDICT, body)
    assert status == 400
    assert problem in json.loads(content)["error"]


def test_the_instance_is_named_by_its_number_in_the_request(server):
    body = {"instances": [{"price": 1.5}] * 700 + [{"price": "x"}]}
    assert "instance 700, column price" in json.loads(request(server, "POST", PREDICT, body)[1])["error"]


def test_keys_of_64_bits_are_accepted_as_texts(model, server):
    numbers, texts = ({"instances": [{**INSTANCE, "user": user}]} for user in (2**63 - 1, str(2**63 - 1)))
    assert request(server, "POST", PREDICT, numbers) == request(server, "POST", PREDICT, texts)
    assert request(server, "POST", PREDICT, {"instances": [{"user": "9" * 30}]})[0] == 400


def test_many_instances_have_the_predictions_of_single_ones(server):
    instances = [{"user": i % 9, "item": i % 4, "price": i / 7} for i in range(1_500)]
    status, content = request(server, "POST", PREDICT, {"instances": instances})
    predictions = json.loads(content)["predictions"]
    assert (status, len(predictions)) == (200, 1_500)
    for i in (0, 255, 256, 1_499):
        single = json.loads(request(server, "POST", PREDICT, {"instances": [instances[i]]})[1])["predictions"]
        assert predictions[i] == pytest.approx(single[0], rel=1e-6)


@pytest.mark.parametrize(
    ("sent", "last"),
    [(b"", []), (post(ONE)[:60], [503]), (post(ONE)[:-5], [503]), (post(ONE, close=False), [200])],
    ids=["silent", "half a head", "half a body", "idle"],
)
def test_a_new_connection_is_served_while_as_many_as_allowed_wait_for_their_clients(tmp_path, sent, last):
    with served_model(tmp_path, serving={"max_connections": 5}) as made:
        held = []
        for _ in range(12):
            held.append(connection := connect(made.server))
            connection.sendall(sent)
            assert request(made.server, "POST", PREDICT, ONE)[0] == 200
        assert statuses(received(held[0])) == last
        for connection in held:
            connection.close()


@pytest.mark.parametrize("sent", [b"", post(ONE)[:60]], ids=["silent", "half a head"])
def test_a_connection_that_has_been_served_is_kept_while_others_flood_the_server(tmp_path, sent):
    with served_model(tmp_path, serving={"max_connections": 5}) as made, connect(made.server) as kept:
        flood = []
        for _ in range(10):
            kept.sendall(post(ONE, close=False))
            head, _, body = kept.recv(10_000).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            while not body.endswith(b"}"):
                body += kept.recv(10_000)
            for _ in range(5):
                flood.append(connection := connect(made.server))
                connection.sendall(sent)
            assert statuses(received(flood[-6 if len(flood) > 5 else 0])) == ([503] if sent else [])
        for connection in flood:
            connection.close()


def test_a_client_that_is_too_slow_is_refused(tmp_path):
    clock = ManualClock()
    with served_model(tmp_path, clock=clock, serving={"read_timeout_s": 0.3, "keep_alive_s": 60.0}) as made:
        silent, half, slow, kept = (connect(made.server) for _ in range(4))
        half.sendall(post(ONE)[:60])
        slow.sendall(post(ONE)[:-5])
        kept.sendall(post(ONE, close=False))
        assert kept.recv(20).startswith(b"HTTP/1.1 200")
        clock.wait(1.0)
        assert statuses(received(slow)) == [408]
        assert statuses(received(half)) == [408]
        assert received(silent) == b""
        kept.sendall(post(ONE))
        assert b"HTTP/1.1 200" in received(kept)
        idle = connect(made.server)
        idle.sendall(post(ONE, close=False))
        assert idle.recv(20).startswith(b"HTTP/1.1 200")
        request(made.server, "GET", "/readyz")  # the response before is complete for the server, too
        clock.wait(61.0)
        received(idle)
        for connection in (silent, half, slow, kept, idle):
            connection.close()


def test_connections_leave_files_for_the_log():
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert allow_files(1) == max(allowed - 384, allowed - allowed // 2)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == allowed


def test_a_server_listens_on_ipv6(model):
    serving = model.trainer.project.config.serving.model_copy(update={"host": "::1", "port": 0})
    config = model.trainer.project.config.model_copy(update={"serving": serving})
    with (
        ReplicaServer(model.replica, config, model.trainer.project.clock) as server,
        socket.create_connection(("::1", server.port)) as connection,
    ):
        connection.sendall(post(ONE))
        assert statuses(received(connection)) == [200]


def test_a_server_with_open_connections_stops(tmp_path):
    with served_model(tmp_path) as made:
        half, slow, idle = (connect(made.server) for _ in range(3))
        half.sendall(post(ONE)[:60])
        slow.sendall(post(ONE)[:-5])
        request(made.server, "GET", "/readyz")
    assert statuses(received(half)) == [503]
    assert statuses(received(slow)) == [503]
    assert received(idle) == b""
    for connection in (half, slow, idle):
        connection.close()
