"""The CRC-32 that both engines keep beside a record: a flipped bit must become an error, never an event."""

import zlib


def checksum(offset: int, appended_at_ms: int, headers: str, value: bytes) -> int:
    """CRC-32 of a record: its value, then everything beside it.

    >>> checksum(0, 0, "", b"")
    218789734
    """
    return zlib.crc32(f"{offset} {appended_at_ms} {headers}".encode(), zlib.crc32(value))
