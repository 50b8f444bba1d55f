"""The CRC-32 that both engines keep beside a record: a flipped bit must become an error, never an event."""

import json
import zlib
from collections.abc import Mapping


def headers_text(headers: Mapping[str, str]) -> str:
    """Headers as they are stored and checked: JSON with sorted keys, nothing for none.

    >>> headers_text({"b": "2", "a": "1"})
    '{"a": "1", "b": "2"}'
    """
    return json.dumps(dict(headers), sort_keys=True) if headers else ""


def checksum(offset: int, appended_at_ms: int, headers: str, value: bytes) -> int:
    """CRC-32 of a record: its value, then everything beside it as text.

    >>> checksum(0, 0, "", b"")
    218789734
    """
    return zlib.crc32(f"{offset} {appended_at_ms} {headers}".encode(), zlib.crc32(value))
