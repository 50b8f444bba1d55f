"""Answers of a cluster that are none: another server at its address, a process that died while it spoke."""

import socket
import threading

import pytest

from pipeline.cluster.flink import ask_flink
from pipeline.errors import ClusterError
from pipeline.flink.rest import FlinkRest

CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"


@pytest.fixture(params=[b"\x00\x00\x00\x04", CUT, b""], ids=["no HTTP", "cut short", "nothing"])
def port(request):
    """Where somebody listens who answers just that, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(request.param)

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


def test_what_is_no_answer_is_an_error_that_names_the_address(port):
    with pytest.raises(ClusterError, match=f"flink at http://127.0.0.1:{port} does not answer: .*set flink.rest"):
        FlinkRest(f"127.0.0.1:{port}").get("/jobs")
    assert ask_flink(port, "/overview") is None
