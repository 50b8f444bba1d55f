"""The join's state as frames: one form, for the round's files and for a runner's state alike.

The head holds what changes: offsets and watermarks, waiting clicks, and of each held impression its marks, one byte
(its status, and in the highest bit whether its window is closed). It names the segments (`segment`) that hold the
impressions themselves: those are written once, and saving again costs what is new. As one value (`join_to_bytes`) the
state is the head and its segments one after the other. The index over ids is not stored: it is built again.
"""

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays.block import EventKind
from pipeline.configuration.config import Config
from pipeline.errors import DamagedError, MigrationError
from pipeline.formats.columns import pack, unpack
from pipeline.samples.join.clicks import CLICK, Clicks
from pipeline.samples.join.emitted import EMITTED, EmittedPositions
from pipeline.samples.join.held_impressions import Bucket
from pipeline.samples.join.input_progress import InputProgress
from pipeline.samples.join.join import Join
from pipeline.samples.join.output import empty_columns
from pipeline.samples.join.segment import BucketSlice, Segment
from pipeline.samples.state.frames import HINT, digest_of, frame, frames_of, making_sense, unframe
from pipeline.samples.state.segment_codec import cut, decode_segment, encode_slice

_CLOSED = 128
_DECODERS = 2
"""Threads that read a state's segments."""


@dataclass(frozen=True)
class Snapshot:
    """A state of the join, taken while nothing is fed; encoding it takes longer, and the join may go on meanwhile.

    Attributes:
        header: the head's, but for the segments.
        sections: the head's.
        buckets: each with what it consists of: segments that are written already, and what is to become segments.
    """

    header: Mapping[str, Any]
    sections: Sequence[bytes]
    buckets: Sequence[tuple[Bucket, Sequence[Segment | BucketSlice]]]

    def encode(self, keep: Callable[[Segment, bytes], None]) -> tuple[bytes, tuple[Segment, ...]]:
        """The head's frame and the segments it names, in order; each new one is handed to `keep` first, with its frame.

        In any thread, but of one join one after the other: buckets remember what they were last saved as.
        """
        names: list[list[Any]] = []
        for bucket, parts in self.buckets:
            bucket.segments = tuple(_kept(part, keep) for part in parts)
            names.append([bucket.serial, *bucket.name, len(parts)])
        segments = tuple(s for bucket, _ in self.buckets for s in bucket.segments)
        return frame({**self.header, "buckets": names, "segments": segments}, self.sections), segments


@dataclass(frozen=True)
class SavedJoin:
    """A state of the join.

    Attributes:
        head: its frame.
        segments: those the head names, in order.
        new: by name, the frames of segments that were not written yet.
    """

    head: bytes
    segments: tuple[Segment, ...]
    new: Mapping[str, bytes]


@dataclass(frozen=True)
class JoinSummary:
    """Where a join stands: how far it has read, and how many impressions, pending and candidate clicks it holds."""

    progress: InputProgress
    held: int
    pending: int
    candidates: int


def take_snapshot(join: Join, written: Container[str] = ()) -> Snapshot:
    """The state, where segments whose names are in `written` need not be made again; only just after `finish`."""
    assert join.settled, "a join is saved after finish"
    buckets = [b for b in join.held.buckets.values() if len(b)]
    sections: list[bytes] = [_marks(bucket).tobytes() for bucket in buckets]
    for clicks in (join.pending, join.candidates):
        sections += [clicks.rows.tobytes(), pack(clicks.columns)]
    sections += [join.held.links.tobytes(), join.emitted_positions.rows.tobytes()]
    header = {"shard": join.shard, "keyed": _keyed(join.config), "progress": join.progress.to_json()}
    return Snapshot(header, sections, [(bucket, list(_parts(bucket, written))) for bucket in buckets])


def save_join(join: Join, written: Container[str] = ()) -> SavedJoin:
    """The state, but for segments whose names are in `written`; only just after `finish`."""
    new: dict[str, bytes] = {}
    head, segments = take_snapshot(join, written).encode(lambda segment, value: new.update({segment.name: value}))
    return SavedJoin(head, segments, new)


def load_join(
    config: Config, shard: int, input_partitions: Mapping[EventKind, int], frames: Iterable[tuple[str, bytes]]
) -> Join:
    """The join that was saved; columns are those the configuration declares now, new ones null.

    Args:
        config: what it joins by.
        shard: which of its shards it is.
        input_partitions: by kind, how many there are.
        frames: the head and its segments in order, each with a name for messages.

    Raises DamagedError where a frame is not whole or not the one named, MigrationError where the join key or the shards
    have changed.
    """
    each = iter(frames)
    name, head = next(each)
    header, sections = unframe(head, name)
    with making_sense(name):
        _check_keyed(header, config, shard, name)
        join = Join(config, shard, input_partitions)
        join.progress.restore(header["progress"])
        decoded = _decoded_ahead(each)
        buckets = _buckets(header, sections, decoded, empty_columns(config.events.impressions.columns).schema)
        if next(decoded, None) is not None:
            raise ValueError("a segment that it does not name follows it")
        clicks = empty_columns(config.events.clicks.columns).schema
        join.pending, join.candidates = _clicks(sections, clicks), _clicks(sections, clicks)
        join.held.restore(buckets, np.frombuffer(next(sections), np.uint64).reshape(-1, 2))
        join.emitted_positions = EmittedPositions(np.frombuffer(next(sections), EMITTED).copy())
        return join


def load_summary(
    config: Config, shard: int, input_partitions: Mapping[EventKind, int], frames: Iterable[tuple[str, bytes]]
) -> JoinSummary:
    """Where the join that was saved stands; of `frames` only the head is looked at. Raises as `load_join`."""
    name, head = next(iter(frames))
    header, sections = unframe(head, name)
    with making_sense(name):
        _check_keyed(header, config, shard, name)
        progress = InputProgress(input_partitions)
        progress.restore(header["progress"])
        held = sum(len(next(sections)) for _ in header["buckets"])
        pending, _, candidates, *_ = (len(section) // CLICK.itemsize for section in sections)
        return JoinSummary(progress, held, pending, candidates)


def join_to_bytes(join: Join) -> bytes:
    """The whole state; only just after `finish`."""
    saved = save_join(join)
    return b"".join([saved.head, *(saved.new[segment.name] for segment in saved.segments)])


def join_from_bytes(
    config: Config, shard: int, input_partitions: Mapping[EventKind, int], value: bytes, name: str = "join state"
) -> Join:
    """The join that `join_to_bytes` wrote, as `load_join` gives it; `name` is for messages."""
    frames = [(name, one) for one in frames_of(value, name)] or [(name, b"")]
    return load_join(config, shard, input_partitions, frames)


def _parts(bucket: Bucket, written: Container[str]) -> Iterator[Segment | BucketSlice]:
    """What the bucket's rows lie in, or will."""
    before = {(s.first, s.stop): s for s in bucket.segments if s.name in written}
    for first, stop in pairwise([0, *cut([s.stop for s in bucket.segments], len(bucket))]):
        yield before.get((first, stop)) or bucket.piece(first, stop)


def _kept(part: Segment | BucketSlice, keep: Callable[[Segment, bytes], None]) -> Segment:
    if isinstance(part, Segment):
        return part
    segment, value = encode_slice(part)
    keep(segment, value)
    return segment


def _marks(bucket: Bucket) -> npt.NDArray[np.uint8]:
    rows = bucket.rows
    return rows["flags"] | rows["closed"] * np.uint8(_CLOSED)


def _buckets(
    header: dict[str, Any], sections: Iterator[memoryview], decoded: Iterator["_Decoded"], schema: pa.Schema
) -> list[Bucket]:
    buckets = []
    segments = iter([Segment(*s) for s in header["segments"]])
    for serial, scale, number, count in header["buckets"]:
        bucket = Bucket(serial, (scale, number))
        marks = np.frombuffer(next(sections), np.uint8)
        bucket.reserve(len(marks))
        bucket.segments = tuple(islice(segments, count))
        for segment in bucket.segments:
            rows, columns = _segment_of(segment, bucket, next(decoded))
            part = marks[segment.first : segment.stop]
            rows["flags"], rows["closed"] = part % _CLOSED, part >= _CLOSED
            bucket.append(rows, _aligned(columns, schema))
        if len(marks) != len(bucket):
            raise ValueError(f"bucket {serial} has {len(bucket)} rows and marks of {len(marks)}")
        buckets.append(bucket)
    return buckets


class _Decoded(NamedTuple):
    """What a segment's frame holds; `digest` is the frame's own."""

    name: str
    rows: np.ndarray
    columns: pa.RecordBatch
    digest: str


def _decoded_ahead(frames: Iterable[tuple[str, bytes]]) -> Iterator[_Decoded]:
    """Segments in order, some decoded ahead on other threads: nearly all of that holds no GIL."""
    with ThreadPoolExecutor(_DECODERS) as pool:
        under_way = deque[Future[_Decoded]]()
        for name, value in frames:
            under_way.append(pool.submit(_decode, name, value))
            if len(under_way) > _DECODERS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _decode(name: str, value: bytes) -> _Decoded:
    return _Decoded(name, *decode_segment(value, name), digest_of(value))


def _segment_of(segment: Segment, bucket: Bucket, found: _Decoded) -> tuple[np.ndarray, pa.RecordBatch]:
    """The rows and columns of the segment that the bucket goes on with."""
    if (segment.serial, segment.first) != (bucket.serial, len(bucket)) or segment.first >= segment.stop:
        raise ValueError(f"segment {segment.name} does not follow row {len(bucket)} of bucket {bucket.serial}")
    rows, digest = len(found.rows), found.digest
    if digest != segment.digest or rows != segment.stop - segment.first:
        raise DamagedError(f"{found.name} has {rows} rows and digest {digest}, wanted {segment.name}. {HINT}")
    return found.rows, found.columns


def _clicks(sections: Iterator[memoryview], schema: pa.Schema) -> Clicks:
    rows = np.frombuffer(next(sections), CLICK).copy()
    return Clicks(rows, _aligned(unpack(bytes(next(sections)), len(rows)), schema))


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
