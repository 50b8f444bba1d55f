"""A join from its stored state, or a summary of that state without loading it."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import EventKind
from pipeline.configuration.config import Config
from pipeline.configuration.streams.events import CANDIDATES, EventColumns
from pipeline.errors import MigrationError
from pipeline.formats.columns import unpack
from pipeline.formats.container import Container
from pipeline.logs.events.event_columns import arrow_schema
from pipeline.samples.held.bucket import Bucket
from pipeline.samples.held.rows import CLOSED
from pipeline.samples.held.segment import Segment
from pipeline.samples.join.attribution import Attribution
from pipeline.samples.join.clicks import CLICK, Clicks
from pipeline.samples.join.join import Join
from pipeline.samples.join.progress.emitted import EMITTED, EmittedPositions
from pipeline.samples.join.progress.input_progress import InputProgress
from pipeline.samples.state.segment_codec import STATE_FIX, decode_segment
from pipeline.samples.state.snapshot import PENDING, UNDECIDED, UNSHOWN, keyed_by, section_suffix

_DECODERS = 2
"""Threads that decode segments."""


@dataclass(frozen=True)
class JoinSummary:
    """The progress of a join, what it holds (impressions, pending and undecided clicks, candidates) and has emitted."""

    progress: InputProgress
    held: int
    pending: int
    undecided: int
    unshown: int
    counts: Mapping[EventKind, Mapping[str, int]]
    """Of `EmittedCounts`."""


class _Decoded(NamedTuple):
    """The contents of a segment's container."""

    container: Container
    rows: np.ndarray
    columns: pa.RecordBatch


def load_join(
    config: Config,
    shard: int,
    input_partitions: Mapping[EventKind, int],
    head: Container,
    segments: Iterable[Container],
) -> Join:
    """The join of a snapshot, with the columns that the configuration declares now; new ones are null.

    Args:
        config: what it joins by.
        shard: which of its shards it is.
        input_partitions: their number, by kind.
        head: of kind `HEAD`.
        segments: those that the head names, in order.

    Raises DamagedError if a container is damaged or is not the segment that the head names, MigrationError if the join
    key or the shards have changed.
    """
    with head.parsing():
        _check_keyed(head, config, shard)
        join = Join(config, shard, input_partitions)
        join.progress.restore(head.header["progress"])
        join.counts.restore(_counts(head))
        decoded = _decoded_ahead(segments)
        buckets = _buckets(head, decoded, config)
        if next(decoded, None) is not None:
            raise ValueError("there are more segments than it names")
        for each in join.attributions:
            each.pending = _clicks_of(head, PENDING, each)
            each.undecided.replace(_clicks_of(head, UNDECIDED, each))
        if join.unshown is not None:
            join.unshown.waiting.replace(_clicks(head, UNSHOWN, config.events.by_kind[CANDIDATES]))
        join.held.restore(buckets, head.array("links", np.uint64).reshape(-1, 2))
        join.emitted_positions = EmittedPositions(head.array("emitted", EMITTED))
        return join


def load_summary(config: Config, shard: int, input_partitions: Mapping[EventKind, int], head: Container) -> JoinSummary:
    """The summary of a snapshot, from the header of its head alone. Raises as `load_join`."""
    with head.parsing():
        _check_keyed(head, config, shard)
        progress = InputProgress(input_partitions)
        progress.restore(head.header["progress"])
        suffixes = [section_suffix(number) for number in range(len(config.feedbacks))]
        pending, undecided = (
            sum(head.section_bytes(name + suffix) // CLICK.itemsize for suffix in suffixes)
            for name in (PENDING, UNDECIDED)
        )
        unshown = 0 if config.events.candidates is None else head.section_bytes(UNSHOWN) // CLICK.itemsize
        return JoinSummary(progress, head.section_bytes("flags"), pending, undecided, unshown, _counts(head))


def _counts(head: Container) -> Mapping[EventKind, Mapping[str, int]]:
    """Empty in a head of a release that did not count."""
    counts: Mapping[EventKind, Mapping[str, int]] = head.header.get("counts", {})
    if not all(isinstance(count, int) for of_kind in counts.values() for count in of_kind.values()):
        raise ValueError(f"counts are {counts}")
    return counts


def _buckets(head: Container, decoded: Iterator[_Decoded], config: Config) -> list[Bucket]:
    schema, feedbacks = arrow_schema(config.events.impressions.columns), len(config.feedbacks)
    statuses = [head.array(f"flags{section_suffix(number)}", np.uint8) for number in range(1, feedbacks)]
    buckets, start = [], 0
    flags, segments = head.array("flags", np.uint8), iter([Segment(*s) for s in head.header["segments"]])
    for serial, scale, number, count in head.header["buckets"]:
        bucket = Bucket(serial, (scale, number), feedbacks)
        bucket.segments = tuple(islice(segments, count))
        of_bucket = flags[start : start + bucket.segments[-1].stop]
        bucket.reserve(len(of_bucket))
        for segment in bucket.segments:
            rows, columns = _rows_of(segment, bucket, next(decoded))
            part = of_bucket[segment.first : segment.stop]
            rows["flags"], rows["closed"] = part % CLOSED, part >= CLOSED
            bucket.append(rows, _aligned(columns, schema))
        for feedback, status in enumerate(statuses, 1):
            bucket.flags(feedback)[:] = status[start : start + len(bucket)]
        buckets.append(bucket)
        start += len(bucket)
    for of_feedback in (flags, *statuses):
        if start != len(of_feedback):
            raise ValueError(f"buckets have {start} rows and flags of {len(of_feedback)}")
    return buckets


def _decoded_ahead(containers: Iterable[Container]) -> Iterator[_Decoded]:
    """Segments in order. Threads decode the next ones meanwhile: nearly all of that work holds no GIL."""
    with ThreadPoolExecutor(_DECODERS) as pool:
        decoding = deque[Future[_Decoded]]()
        for container in containers:
            decoding.append(pool.submit(_decode, container))
            if len(decoding) > _DECODERS:
                yield decoding.popleft().result()
        while decoding:
            yield decoding.popleft().result()


def _decode(container: Container) -> _Decoded:
    return _Decoded(container, *decode_segment(container))


def _rows_of(segment: Segment, bucket: Bucket, decoded: _Decoded) -> tuple[np.ndarray, pa.RecordBatch]:
    """The rows and columns of the segment that continues the bucket."""
    if (segment.serial, segment.first) != (bucket.serial, len(bucket)) or segment.first >= segment.stop:
        raise ValueError(f"segment {segment.name} does not follow row {len(bucket)} of bucket {bucket.serial}")
    rows, digest = len(decoded.rows), decoded.container.digest
    if digest != segment.digest or rows != segment.stop - segment.first:
        raise decoded.container.damaged(f"it has {rows} rows and digest {digest}, wanted {segment.name}")
    return decoded.rows, decoded.columns


def _clicks_of(head: Container, kind: str, of: Attribution) -> Clicks:
    return _clicks(head, kind + section_suffix(of.number), of.feedback.events)


def _clicks(head: Container, name: str, events: EventColumns) -> Clicks:
    rows = head.array(name, CLICK)
    schema = arrow_schema(events.columns)
    return Clicks(rows, _aligned(unpack(head.section(f"{name}_columns"), len(rows)), schema))


def _check_keyed(head: Container, config: Config, shard: int) -> None:
    stored, wanted = {"of": head.header["shard"], **head.header["keyed"]}, {"of": shard, **keyed_by(config)}
    if stored == wanted:
        return
    kinds = ("feedbacks", "candidates")
    others = [{name: value for name, value in keyed.items() if name not in kinds} for keyed in (stored, wanted)]
    fix = STATE_FIX if others[0] == others[1] else "begin a new state folder and new topics"
    raise MigrationError(
        f"{head.name} was made with {stored}, the configuration has {wanted}. hint: set it back, or {fix}"
    )


def _aligned(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """`batch` with the columns of `schema`: missing ones null, others left out."""
    arrays = []
    for field in schema:
        number = batch.schema.get_field_index(field.name)
        if number < 0:
            arrays.append(pa.nulls(batch.num_rows, field.type))
            continue
        try:
            arrays.append(batch.column(number).cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as failure:
            raise MigrationError(
                f"column {field.name} of held events is {batch.schema.field(number).type}, "
                f"the configuration has {field.type}: {failure}. hint: set it back, or rename the new column"
            ) from failure
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
