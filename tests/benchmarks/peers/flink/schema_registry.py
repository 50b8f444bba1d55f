"""A registry of Avro schemas for Flink's avro-confluent format: serves them by id over HTTP on localhost."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@contextmanager
def serve_schemas(documents: Mapping[int, Mapping[str, Any]]) -> Iterator[str]:
    """The registry's URL; it serves `GET /schemas/ids/ID` inside the `with` block, and 404 for an unknown id."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            id = int(urlsplit(self.path).path.rpartition("/")[2])
            body = json.dumps({"schema": json.dumps(documents[id])} if id in documents else {"error_code": 40403})
            self.send_response(200 if id in documents else 404)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing: a benchmark's output is its result."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
