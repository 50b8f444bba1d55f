"""The join's state as bytes: one form, for the round file and for a runner's state alike.

Layout: magic `FRSHJOIN` | format version u32 | header length u32 | body length u64 | header (JSON) | body (sections
one after the other) | BLAKE2b-128 of everything before. Little-endian. The header names each section's length in bytes;
typed rows are NumPy's bytes, raw columns Arrow IPC streams. The index over ids is not stored: it is built again.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ground.block import Kind
from pipeline.ground.config import Config
from pipeline.ground.errors import DamagedError, MigrationError
from pipeline.logs.columns import pack, unpack
from pipeline.samples.clicks import CLICK, Clicks
from pipeline.samples.held import Bucket
from pipeline.samples.join import Join
from pipeline.samples.output import empty_columns
from pipeline.samples.position import SAID, Said
from pipeline.samples.progress import Progress
from pipeline.samples.rows import HELD

_MAGIC = b"FRSHJOIN"
_VERSION = 1
_HEAD = struct.Struct("<8sIIQ")
_SUM_BYTES = 16
_HINT = "hint: delete it; the join then begins again at what its samples partition says it needs"


def join_to_bytes(join: Join) -> bytes:
    """The whole state; only just after `finish`."""
    assert join.settled, "a join is saved after finish"
    sections: list[bytes] = []
    buckets = [b for b in join.held.buckets.values() if len(b)]
    for bucket in buckets:
        sections += [bucket.rows.tobytes(), pack(bucket.columns)]
    for clicks in (join.pending, join.candidates):
        sections += [clicks.rows.tobytes(), pack(clicks.columns)]
    sections += [join.held.links.tobytes(), join.said.rows.tobytes()]
    header = {
        "shard": join.shard,
        "keyed": _keyed(join.config),
        "progress": join.progress.to_json(),
        "buckets": [[b.serial, *b.name] for b in buckets],
        "sections": [len(s) for s in sections],
    }
    return _framed(json.dumps(header).encode(), b"".join(sections))


def join_from_bytes(
    config: Config, shard: int, input_partitions: Mapping[Kind, int], value: bytes, name: str = "join state"
) -> Join:
    """The join that `join_to_bytes` wrote; columns are those the configuration declares now, new ones null.

    Raises DamagedError where the bytes are not whole, MigrationError where the join key or the shards have changed.
    `name` is for messages.
    """
    header, body = _unframed(value, name)
    try:
        return _join_of(config, shard, input_partitions, json.loads(header), body, name)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, StopIteration, RecursionError) as failure:
        raise DamagedError(f"{name} matches its checksum and makes no sense: {failure!r}. {_HINT}") from failure


def progress_in(
    config: Config, shard: int, input_partitions: Mapping[Kind, int], value: bytes, name: str = "join state"
) -> Progress:
    """How far the join that `join_to_bytes` wrote has read, without the join. Raises as `join_from_bytes`."""
    header = json.loads(_unframed(value, name)[0])
    _check_keyed(header, config, shard, name)
    progress = Progress(input_partitions)
    progress.restore(header["progress"])
    return progress


def _join_of(
    config: Config, shard: int, input_partitions: Mapping[Kind, int], header: dict[str, Any], body: bytes, name: str
) -> Join:
    _check_keyed(header, config, shard, name)
    sections = _sections(header["sections"], body)
    join = Join(config, shard, input_partitions)
    join.progress.restore(header["progress"])
    impressions = empty_columns(config.events.impressions.columns).schema
    buckets = []
    for serial, *bucket_name in header["buckets"]:
        bucket = Bucket(serial, (bucket_name[0], bucket_name[1]))
        bucket.append(*_rows_and_columns(sections, HELD, impressions))
        buckets.append(bucket)
    clicks = empty_columns(config.events.clicks.columns).schema
    join.pending = Clicks(*_rows_and_columns(sections, CLICK, clicks))
    join.candidates = Clicks(*_rows_and_columns(sections, CLICK, clicks))
    join.held.restore(buckets, np.frombuffer(next(sections), np.uint64).reshape(-1, 2))
    join.said = Said(np.frombuffer(next(sections), SAID).copy())
    return join


def _keyed(config: Config) -> dict[str, Any]:
    """What ids and shards of held events were made with."""
    return {"key": list(config.events.key), "shard": list(config.events.shard_columns), "shards": config.logs.shards}


def _check_keyed(header: dict[str, Any], config: Config, shard: int, name: str) -> None:
    was, now = {"of": header["shard"], **header["keyed"]}, {"of": shard, **_keyed(config)}
    if was != now:
        raise MigrationError(
            f"{name} was made with {was}, the configuration says {now}. "
            "hint: set it back, or begin a new state folder and new topics"
        )


def _rows_and_columns(
    sections: Iterator[bytes], dtype: np.dtype[np.void], schema: pa.Schema
) -> tuple[npt.NDArray[np.void], pa.RecordBatch]:
    rows = np.frombuffer(next(sections), dtype).copy()
    return rows, _aligned(unpack(next(sections), len(rows)), schema)


def _aligned(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """`batch` with the columns of `schema`: missing ones null, others left out."""
    arrays = []
    for field in schema:
        found = batch.schema.get_field_index(field.name)
        if found < 0:
            arrays.append(pa.nulls(batch.num_rows, field.type))
            continue
        try:
            arrays.append(batch.column(found).cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as failure:
            raise MigrationError(
                f"column {field.name} of held events is {batch.schema.field(found).type}, "
                f"the configuration says {field.type}: {failure}. hint: set it back, or give the new column a new name"
            ) from failure
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _framed(header: bytes, body: bytes) -> bytes:
    whole = _HEAD.pack(_MAGIC, _VERSION, len(header), len(body)) + header + body
    return whole + hashlib.blake2b(whole, digest_size=_SUM_BYTES).digest()


def _unframed(value: bytes, name: str) -> tuple[bytes, bytes]:
    """Header and body of whole bytes. Raises DamagedError."""
    if len(value) < _HEAD.size + _SUM_BYTES:
        raise DamagedError(f"{name} has {len(value)} bytes, at least {_HEAD.size + _SUM_BYTES} are needed. {_HINT}")
    magic, version, header_bytes, body_bytes = _HEAD.unpack_from(value)
    if (magic, version) != (_MAGIC, _VERSION):
        raise DamagedError(
            f"{name} begins with {magic!r} version {version}, wanted {_MAGIC!r} version {_VERSION}. {_HINT}"
        )
    wanted = _HEAD.size + header_bytes + body_bytes + _SUM_BYTES
    if len(value) != wanted:
        raise DamagedError(f"{name} has {len(value)} bytes, its head says {wanted}. {_HINT}")
    if hashlib.blake2b(value[:-_SUM_BYTES], digest_size=_SUM_BYTES).digest() != value[-_SUM_BYTES:]:
        raise DamagedError(f"{name} does not match its checksum. {_HINT}")
    return value[_HEAD.size : _HEAD.size + header_bytes], value[_HEAD.size + header_bytes : -_SUM_BYTES]


def _sections(lengths: list[int], body: bytes) -> Iterator[bytes]:
    start = 0
    for length in lengths:
        yield body[start : start + length]
        start += length
