"""Invalid responses of a Flink cluster: another server at its address, a process that died while it responded."""

import socket
import threading

import pytest

from pipeline.cluster.flink import read_flink
from pipeline.cluster.flink_rest import FlinkRest
from pipeline.errors import ClusterError

CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"


@pytest.fixture(params=[b"\x00\x00\x00\x04", CUT, b""], ids=["no HTTP", "cut short", "nothing"])
def port(request):
    """Port of a server that sends exactly these bytes and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond():
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(request.param)

        threading.Thread(target=respond, daemon=True).start()
        yield server.getsockname()[1]


def test_an_invalid_response_is_an_error_that_names_the_address(port):
    with pytest.raises(ClusterError, match=f"flink at http://127.0.0.1:{port} is unavailable: .*set flink.rest"):
        FlinkRest(f"127.0.0.1:{port}").get("/jobs")
    assert read_flink(port, "/overview") is None
