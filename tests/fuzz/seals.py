"""Checksums put right after a change: without them no changed input would be read further than its checksum.

Each function takes bytes that were once a whole file or record of its format, and gives them the frame, lengths and
checksums they would have if the change had been meant. What is beyond that is returned as it came.
"""

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import crc32c
import xxhash

from pipeline.formats.schemas import FRAME_BYTES, frame, load_schema

Seal = Callable[[bytes], bytes]


def framed(schema: str) -> Seal:
    """Records of a log: the frame names the schema."""
    return lambda value: frame(load_schema(schema).id, value[FRAME_BYTES:])


def delta(value: bytes) -> bytes:
    """Frame, then SHA-256 over the record with those 32 bytes zero."""
    start = frame(load_schema("delta").id, b"")
    rest = value[FRAME_BYTES + 32 :]
    return start + hashlib.sha256(start + bytes(32) + rest).digest() + rest


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


def dense(value: bytes) -> bytes:
    """BLAKE2b-256 at the end."""
    return value[:-32] + hashlib.blake2b(value[:-32], digest_size=32).digest()


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


def version_file(value: bytes) -> bytes:
    """Sections' lengths and SHA-256 where the header lists them, then that of the header at the end."""
    prefix = struct.Struct("<8sII")
    if len(value) < prefix.size + 32:
        return value
    magic, form, length = prefix.unpack_from(value)
    body = value[prefix.size : -32]
    header, sections = body[:length], body[length:]
    document = parsed(header)
    if isinstance(document, dict):
        _sum_sections(document, sections)
        header = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    begin = prefix.pack(magic, form, len(header)) + header
    return begin + sections + hashlib.sha256(begin).digest()


def join_state(value: bytes) -> bytes:
    """Lengths in the head, BLAKE2b-128 at the end."""
    head = struct.Struct("<8sIIQ")
    if len(value) < head.size + 16:
        return value
    magic, version, header_bytes, _ = head.unpack_from(value)
    rest = value[head.size : -16]
    header_bytes = min(header_bytes, len(rest))
    whole = head.pack(magic, version, header_bytes, len(rest) - header_bytes) + rest
    return whole + hashlib.blake2b(whole, digest_size=16).digest()


def parsed(text: bytes) -> Any:
    """The JSON document, None where there is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _sum_sections(document: dict[str, Any], sections: bytes) -> None:
    listed, start = document.get("sections"), 0
    for entry in listed if isinstance(listed, list) else []:
        length = entry.get("length") if isinstance(entry, dict) else None
        if not isinstance(length, int) or length < 0:
            return
        entry["length"] = min(length, len(sections) - start)
        entry["sha256"] = hashlib.sha256(sections[start : start + entry["length"]]).hexdigest()
        start += entry["length"]
