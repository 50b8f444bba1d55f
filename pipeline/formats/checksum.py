"""The CRC-32 that log engines store with each record, so that a flipped bit is an error and never an event."""

import json
import zlib
from collections.abc import Mapping


def headers_text(headers: Mapping[str, str]) -> str:
    """The stored form of headers: JSON with sorted keys, or an empty text for none.

    >>> headers_text({"b": "2", "a": "1"})
    '{"a": "1", "b": "2"}'
    """
    return json.dumps(dict(headers), sort_keys=True) if headers else ""


def checksum(offset: int, appended_at_ms: int, headers: str, value: bytes, key: bytes | None = None) -> int:
    """CRC-32 of a record: of its value, then of its offset, append time and headers as text, then of its key if any.

    >>> checksum(0, 0, "", b"")
    218789734
    """
    found = zlib.crc32(f"{offset} {appended_at_ms} {headers}".encode(), zlib.crc32(value))
    return found if key is None else zlib.crc32(b" " + key, found)
