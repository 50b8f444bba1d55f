"""Responses of the replica. An error is {"error": text}; a body is always valid JSON, or the text of the metrics."""

import json
from http import HTTPStatus
from typing import Any, NamedTuple

_JSON = "application/json"
_MAX_TEXT = 1_000
CROWDED = "too many connections wait for their clients. hint: retry later"
"""Why a waiting connection is closed with 503 to make room for another."""

Headers = tuple[tuple[str, str], ...]


class Response(NamedTuple):
    """Status, content type, body and further headers of a response."""

    status: int
    content_type: str
    body: bytes
    headers: Headers = ()


class Refusal(Exception):
    """A request that gets an error response instead of its result."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.response = error_response(status, text, headers)


def json_response(status: int, document: Any) -> Response:
    """`document` as JSON. Raises ValueError for a number that is not finite."""
    return Response(status, _JSON, json.dumps(document, allow_nan=False).encode())


def error_response(status: int, text: str, headers: Headers = ()) -> Response:
    """An error; a text longer than 1,000 characters is cut.

    >>> error_response(404, "GET /x is unknown").body
    b'{"error": "GET /x is unknown"}'
    """
    shown = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
    return Response(status, _JSON, json.dumps({"error": shown}).encode(), headers)


def last_response(status: int, text: str) -> bytes:
    """The bytes of an error response after which the server closes the connection.

    >>> last_response(408, "too slow").splitlines()[0]
    b'HTTP/1.1 408 Request Timeout'
    """
    response = error_response(status, text)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {response.content_type}\r\n"
        f"content-length: {len(response.body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + response.body
