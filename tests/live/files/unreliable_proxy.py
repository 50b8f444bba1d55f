"""A proxy before a server that drops connections, or answers 503 in its place."""

import random
import socket
import threading

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_THROTTLED = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_SLOW_DOWN), _SLOW_DOWN)
)
_PIECE_BYTES = 1 << 16


class UnreliableProxy:
    """Use it as a context manager.

    Attributes:
        port: where it listens.
        failed: connections that it dropped.
        throttled: how many further connections it answers with 503.
    """

    def __init__(self, server, failing=0.0, throttled=0, seed=0):
        """`failing`: the share of 64 KiB pieces in either direction after which a connection is dropped."""
        self._server, self._failing, self.throttled, self.failed = server, failing, throttled, 0
        self._random = random.Random(seed)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listening.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        if self.throttled:
            self.throttled -= 1
            client.recv(_PIECE_BYTES)
            client.sendall(_THROTTLED)
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self._server))
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source, sink):
        try:
            while piece := source.recv(_PIECE_BYTES):
                if self._random.random() < self._failing:
                    self.failed += 1
                    break
                sink.sendall(piece)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
