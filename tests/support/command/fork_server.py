"""Starts commands in milliseconds: a server that has imported the command line and TensorFlow forks per command.

The server runs no operation of TensorFlow and has no thread of Python when it forks, so a forked command is like one
that has just finished its imports. It is a process of its own, started at the first use and ended with the process that
uses it.

A client connects to the server's socket, sends its arguments, folder and environment with its three standard streams,
and receives the process id and, at the end, the status of `os.waitpid`.
"""

import atexit
import gc
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from functools import cache
from importlib import import_module
from multiprocessing.connection import wait
from pathlib import Path

REPO = Path(__file__).parents[3]
PRELOADED = (
    "pipeline.cli.outcome",
    "pipeline.demo.run",
    "pipeline.model.dense",
    "pipeline.samples.run.in_process",
    "pipeline.serving.http",
    "pipeline.trainer.run.in_process",
)
_MESSAGE = struct.Struct("<i")
_CACHE_READ = ("Error parsing text-format tensorflow.XlaSerializedCacheEntry", "Loading XLA:CPU AOT result.")
"""In lines that TensorFlow writes to stderr when it reads the cache that tests share: an entry is tried as text, and a
tuning of the compiler for this processor is none of its features."""


def _is_of_the_command(line: str) -> bool:
    return not any(part in line for part in _CACHE_READ)


class ForkedCommand:
    """A command started by the server, with the methods of `subprocess.Popen` that tests use."""

    def __init__(
        self, arguments: list[str], folder: Path, environment: dict[str, str], stderr_file: Path | None = None
    ) -> None:
        """With `stderr_file`, stderr is appended to that file and `self.stderr` is empty."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        if stderr_file is not None:
            os.close(err_end)
            err_end = os.open(stderr_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        streams = [null, out_end, err_end]
        self._connection = _request(start_server(), [arguments, str(folder), environment], streams)
        for number in streams:
            os.close(number)
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        self.args: list[str] = arguments
        self.returncode: int | None = None
        self.pid = _receive(self._connection)

    def poll(self) -> int | None:
        if self.returncode is None and wait([self._connection], 0):
            self.returncode = os.waitstatus_to_exitcode(_receive(self._connection))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not wait([self._connection], timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        read: dict[str, str] = {}
        pipes = {"out": self.stdout, "err": self.stderr}
        readers = [threading.Thread(target=lambda n=n, p=p: read.update({n: p.read()})) for n, p in pipes.items()]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return read["out"], "".join(filter(_is_of_the_command, read["err"].splitlines(True)))

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def write_command(path: Path) -> None:
    """Write an executable `springtide` that runs through the server, for scripts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(REPO)!r})\n"
        f"from tests.support.command.fork_server import run_forked\nsys.exit(run_forked({str(start_server())!r}))\n"
    )
    path.chmod(0o755)


def run_forked(server: str) -> int:
    """Run `sys.argv` through the server, with the streams, folder and environment of this process."""
    connection = _request(Path(server), [sys.argv[1:], os.getcwd(), dict(os.environ)], [0, 1, 2])
    _receive(connection)
    return os.waitstatus_to_exitcode(_receive(connection))


def _request(server: Path, request: list[object], streams: list[int]) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(server))
    encoded = json.dumps(request).encode()
    socket.send_fds(connection, [_MESSAGE.pack(len(encoded))], streams)
    connection.sendall(encoded)
    return connection


def _receive(connection: socket.socket) -> int:
    return int(_MESSAGE.unpack(connection.recv(_MESSAGE.size, socket.MSG_WAITALL))[0])


@cache
def start_server() -> Path:
    """The socket of a running server."""
    folder = Path(tempfile.mkdtemp(prefix="springtide-fork-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.command.fork_server", str(folder / "socket")],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return folder / "socket"


def serve(path: str) -> None:
    """Fork per connection until stdin ends; returns only in the process of a command."""
    for module in PRELOADED:
        import_module(module)
    gc.collect()
    gc.freeze()
    # Threads of OpenBLAS and jemalloc remain; both libraries prepare for a fork.
    assert threading.active_count() == 1, "a library started a thread: forking is unsafe"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    os.write(1, b"ready\n")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies of those who wait for a command
    while listener in wait([listener, 0]):
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            if _is_command(connection):
                return
            os._exit(0)
        connection.close()
    os._exit(0)


def _is_command(connection: socket.socket) -> bool:
    """Fork the command. True in its process, ready to run; in the other, False once it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, _MESSAGE.size, 3)
    request = connection.recv(_MESSAGE.unpack(size)[0], socket.MSG_WAITALL)
    if command := os.fork():
        for number in streams:
            os.close(number)
        connection.sendall(_MESSAGE.pack(command))
        connection.sendall(_MESSAGE.pack(os.waitpid(command, 0)[1]))
        return False
    connection.close()
    _become(streams, *json.loads(request))
    return True


def _become(streams: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["springtide", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    serve(sys.argv[1])
    from pipeline.cli.main import run_command

    run_command()
