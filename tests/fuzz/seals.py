"""Corrects checksums after a mutation; otherwise no decoder would read past the checksum.

Each function takes a mutated file or record of its format and returns it with a correct frame, lengths and checksums.
Bytes that are too damaged for that are returned unchanged.
"""

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import crc32c
import xxhash

from pipeline.formats.schemas import FRAME_BYTES, frame, load_schema

Seal = Callable[[bytes], bytes]

_ENTRY, _LENGTHS = struct.Struct("<Q16sH"), struct.Struct("<II")


def framed(schema: str) -> Seal:
    """A log record: its frame has the id of the schema."""
    return lambda value: frame(load_schema(schema).id, value[FRAME_BYTES:])


def delta(value: bytes) -> bytes:
    """Frame, then half a SHA-256 over the record with those 16 bytes zero."""
    start = frame(load_schema("delta").id, b"")
    rest = value[FRAME_BYTES + 16 :]
    return start + hashlib.sha256(start + bytes(16) + rest).digest()[:16] + rest


def record_set(value: bytes) -> bytes:
    """One batch of Kafka's: its length, format and CRC-32C."""
    if len(value) < 61:
        return value
    sealed = bytearray(value)
    sealed[8:12], sealed[16] = (len(value) - 12).to_bytes(4, "big"), 2
    sealed[17:21] = crc32c.crc32c(bytes(sealed[21:])).to_bytes(4, "big")
    return bytes(sealed)


def sketch(value: bytes) -> bytes:
    """XXH64 at the end."""
    return value[:-8] + xxhash.xxh64_intdigest(value[:-8]).to_bytes(8, "little")


def manifest(value: bytes) -> bytes:
    """The SHA-256 of canonical JSON inside that JSON."""
    document = parsed(value)
    if not isinstance(document, dict):
        return value
    document.pop("checksum", None)
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return json.dumps({**document, "checksum": hashlib.sha256(canonical.encode()).hexdigest()}).encode()


def round_manifest(value: bytes) -> bytes:
    """BLAKE2b-128 of `round` beside it."""
    document = parsed(value)
    if not isinstance(document, dict):
        return value
    body = json.dumps(document.get("round"), sort_keys=True).encode()
    return json.dumps({**document, "digest": hashlib.blake2b(body, digest_size=16).hexdigest()}).encode()


class ContainerParts(NamedTuple):
    """The parts of a container (`pipeline/formats/container.py`), but for the lengths and the checksum at its end."""

    head: bytes
    body: bytes
    table: bytes
    header: bytes

    @classmethod
    def of(cls, value: bytes) -> "ContainerParts":
        """The parts by the lengths at the end of `value`, which has at least 40 bytes."""
        table_bytes, header_bytes = _LENGTHS.unpack(value[-24:-16])
        rest = value[16:-24]
        header_at = max(len(rest) - header_bytes, 0)
        table_at = max(header_at - table_bytes, 0)
        return cls(value[:16], rest[:table_at], rest[table_at:header_at], rest[header_at:])

    def sealed(self) -> bytes:
        """The container with the lengths and the checksum that belong to these parts."""
        lengths = _LENGTHS.pack(len(self.table), len(self.header))
        covered = self.head + self.table + self.header + lengths
        return self.head + self.body + self.table + self.header + lengths + _sha128(covered)


def container(value: bytes) -> bytes:
    """The sections' lengths and checksums in the table, then the lengths and the checksum at the end."""
    if len(value) < 40:
        return value
    parts = ContainerParts.of(value)
    return parts._replace(table=_sealed_table(parts)).sealed()


def _sealed_table(parts: ContainerParts) -> bytes:
    sealed, start, at = b"", 0, 0
    while at + _ENTRY.size <= len(parts.table):
        length, _, name_bytes = _ENTRY.unpack_from(parts.table, at)
        at += _ENTRY.size + name_bytes
        name = parts.table[at - name_bytes : at]
        stop = len(parts.body) if at >= len(parts.table) else min(start + length, len(parts.body))
        sealed += _ENTRY.pack(stop - start, _sha128(parts.body[start:stop]), len(name)) + name
        start = stop
    return sealed


def _sha128(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()[:16]


def parsed(text: bytes) -> Any:
    """The JSON document; None if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
