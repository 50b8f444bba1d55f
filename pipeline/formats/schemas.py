"""Avro schemas and the frame around every value: byte 0, schema id (4 bytes, big endian), Avro body.

The frame is Confluent's. No registry assigns schema ids: an id is the first 4 bytes of the SHA-256 of the schema's
canonical JSON (no `doc`, keys sorted, no white space), top bit cleared. `schemas/*.avsc` are springtide's own schemas.
"""

import hashlib
import io
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fastavro

from pipeline.errors import DamagedError
from pipeline.formats.avro_shape import check_shape

_FRAME = struct.Struct(">BI")
FRAME_BYTES = _FRAME.size
# fastavro's messages contain the address of the stream; the text of a dead letter must be deterministic.
_ADDRESS = re.compile(r" from <_io\.BytesIO object at 0x[0-9a-f]+>")


@dataclass(frozen=True)
class Schema:
    """One Avro schema: `document` is its JSON, `parsed` is its form for fastavro, `id` is its id in frames."""

    id: int
    document: Mapping[str, Any]
    parsed: Any

    @property
    def name(self) -> str:
        return str(self.document["name"])


def canonical(document: Any) -> str:
    """A schema as JSON without `doc` and white space, keys sorted: schemas of equal meaning have equal text.

    >>> canonical({"type": "record", "name": "r", "doc": "why", "fields": []})
    '{"fields":[],"name":"r","type":"record"}'
    """
    return json.dumps(_without(document, "doc"), sort_keys=True, separators=(",", ":"))


def schema_id(document: Any) -> int:
    """The id of a schema: 31 bits of the SHA-256 of its canonical JSON."""
    return int.from_bytes(hashlib.sha256(canonical(document).encode()).digest()[:4], "big") & 0x7FFFFFFF


def parse_schema(document: Mapping[str, Any]) -> Schema:
    """A schema for encoding and decoding. Logical types decode as plain numbers, so that an invalid time still decodes.

    Raises ValueError if the document is not an Avro record schema, or one of unbounded values (`avro_shape`).
    """
    if (
        not isinstance(document, Mapping)
        or document.get("type") != "record"
        or not isinstance(document.get("fields"), list)
    ):
        raise ValueError(f"not an avro record: {str(document)[:80]}")
    try:
        named: dict[str, Any] = {}
        parsed = fastavro.parse_schema(_without(document, "logicalType"), named_schemas=named)
        check_shape(parsed, named)
    except Exception as failure:  # fastavro raises many types for an invalid document
        raise ValueError(f"not an avro record: {failure}") from failure
    return Schema(schema_id(document), document, parsed)


@cache
def load_schema(name: str) -> Schema:
    """The schema of `schemas/NAME.avsc`."""
    return parse_schema(json.loads((_folder() / f"{name}.avsc").read_text(encoding="utf-8")))


def frame(schema: int, body: bytes) -> bytes:
    """Prepend the frame to an Avro body.

    >>> frame(258, b"x").hex()
    '000000010278'
    """
    return _FRAME.pack(0, schema) + body


def unframe(value: bytes) -> tuple[int, memoryview]:
    """Schema id and body of a framed value; the body is a view. Raises DamagedError if there is no frame."""
    if len(value) < FRAME_BYTES or value[0] != 0:
        raise DamagedError(
            f"value of {len(value)} bytes starts with {bytes(value[:5]).hex() or 'nothing'}, wanted 0 and a schema id"
        )
    return _FRAME.unpack_from(value)[1], memoryview(value)[FRAME_BYTES:]


def encode(schema: Schema, datum: Mapping[str, Any]) -> bytes:
    """Encode and frame `datum`. Raises ValueError or TypeError if it does not fit the schema."""
    out = io.BytesIO()
    out.write(_FRAME.pack(0, schema.id))
    fastavro.schemaless_writer(out, schema.parsed, datum, strict=True)
    return out.getvalue()


def decode(schema: Schema, value: bytes) -> dict[str, Any]:
    """The datum of a framed value, which must have exactly this schema. Raises DamagedError."""
    id, body = unframe(value)
    if id != schema.id:
        raise DamagedError(f"value has schema id {id}, {schema.name} has {schema.id}. hint: another release wrote it")
    return decode_body(schema, body)


def decode_body(writer: Schema, body: bytes | memoryview, reader: Schema | None = None) -> dict[str, Any]:
    """The datum of an Avro body, resolved to `reader` if given. Raises DamagedError, also for trailing bytes."""
    stream = io.BytesIO(body)
    try:
        datum = fastavro.schemaless_reader(stream, writer.parsed, reader.parsed if reader else None)
    except Exception as failure:  # invalid bytes raise EOFError, IndexError, UnicodeDecodeError and more
        reason = _ADDRESS.sub("", str(failure)) or type(failure).__name__
        raise DamagedError(f"bytes are not a valid {writer.name}: {reason}") from failure
    if stream.tell() != len(body):
        raise DamagedError(f"{writer.name} ends after {stream.tell()} of {len(body)} bytes")
    assert isinstance(datum, dict)
    return datum


def _folder() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "schemas"
    return installed if installed.is_dir() else package.parent / "schemas"


def _without(document: Any, key: str) -> Any:
    if isinstance(document, Mapping):
        return {k: _without(v, key) for k, v in document.items() if k != key}
    if isinstance(document, list | tuple):
        return [_without(v, key) for v in document]
    return document
