"""Frames: what the join's state is made of, in files and in a runner's state alike; each is whole or is refused.

Layout: magic `FRSHJOIN` | format version u32 | header length u32 | body length u64 | header (JSON) | body (sections
one after the other) | BLAKE2b-128 of everything before. Little-endian. The header names each section's length in bytes.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.errors import DamagedError

_MAGIC = b"FRSHJOIN"
_VERSION = 2
_HEAD = struct.Struct("<8sIIQ")
_SUM_BYTES = 16
HINT = "hint: delete the join's state; it then begins again at what its samples partition says it needs"


def frame(header: Mapping[str, Any], sections: Sequence[bytes | memoryview]) -> bytes:
    """The frame of a JSON header, which `sections` is added to, and sections of bytes."""
    text = json.dumps({**header, "sections": [len(s) for s in sections]}).encode()
    parts = [_HEAD.pack(_MAGIC, _VERSION, len(text), sum(map(len, sections))), text, *sections]
    return b"".join([*parts, _sum(*parts)])


def digest_of(value: bytes) -> str:
    """The checksum that a frame ends with, hex."""
    return value[-_SUM_BYTES:].hex()


def unframe(value: bytes, name: str) -> tuple[dict[str, Any], Iterator[memoryview]]:
    """Header and sections. Raises DamagedError where the frame is not whole; `name` is for messages."""
    header_bytes, wanted = _lengths(value, name)
    if len(value) != wanted:
        raise DamagedError(f"{name} has {len(value)} bytes, its head says {wanted}. {HINT}")
    whole = memoryview(value)
    if _sum(whole[:-_SUM_BYTES]) != value[-_SUM_BYTES:]:
        raise DamagedError(f"{name} does not match its checksum. {HINT}")
    body = _HEAD.size + header_bytes
    with making_sense(name):
        header = json.loads(value[_HEAD.size : body])
        return header, _sections(header["sections"], whole[body:-_SUM_BYTES])


def frames_of(value: bytes, name: str) -> Iterator[bytes]:
    """The frames that lie one after the other in `value`. Raises DamagedError where one begins that is not there."""
    start = 0
    while start < len(value):
        _, length = _lengths(value[start : start + _HEAD.size + _SUM_BYTES], name)
        yield value[start : start + length]
        start += length


@contextmanager
def making_sense(name: str) -> Iterator[None]:
    """What fails inside for the contents of `name` is a DamagedError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, StopIteration, RecursionError) as failure:
        raise DamagedError(f"{name} matches its checksum and makes no sense: {failure!r}. {HINT}") from failure


def _lengths(value: bytes, name: str) -> tuple[int, int]:
    """That of the header, and of the whole frame that begins here."""
    least = _HEAD.size + _SUM_BYTES
    if len(value) < least:
        raise DamagedError(f"{name} has {len(value)} bytes, at least {least} are needed. {HINT}")
    magic, version, header_bytes, body_bytes = _HEAD.unpack_from(value)
    if (magic, version) != (_MAGIC, _VERSION):
        raise DamagedError(
            f"{name} begins with {magic!r} version {version}, wanted {_MAGIC!r} version {_VERSION}. {HINT}"
        )
    return header_bytes, least + header_bytes + body_bytes


def _sections(lengths: list[int], body: memoryview) -> Iterator[memoryview]:
    start = 0
    for length in lengths:
        yield body[start : start + length]
        start += length


def _sum(*parts: bytes | memoryview) -> bytes:
    found = hashlib.blake2b(digest_size=_SUM_BYTES)
    for part in parts:
        found.update(part)
    return found.digest()
