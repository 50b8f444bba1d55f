"""A snapshot of the join and its encoding: a head, which names the segments that store the impressions.

The head is a container with everything that changes: offsets and watermarks, waiting clicks, emitted positions, and one
byte of flags per held impression (the highest bit: its window is closed). Flags and clicks are stored per feedback, in
sections whose names have its number behind them, except for the first. Segments are written once, so another
snapshot costs as much as what is new. The index over ids is not stored, it is rebuilt.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.configuration.config import Config
from pipeline.formats.columns import pack
from pipeline.formats.container import Kind, encode_container
from pipeline.samples.held.bucket import Bucket
from pipeline.samples.held.rows import CLOSED
from pipeline.samples.held.segment import BucketSlice, Segment
from pipeline.samples.join.clicks import Clicks
from pipeline.samples.join.join import Join
from pipeline.samples.state.segment_codec import STATE_FIX, cut, encode_slice

PENDING, UNDECIDED, UNSHOWN = "pending", "candidates", "unshown"
"""The sections of pending and of undecided clicks and of candidates, and the begins of those of their columns."""
HEAD = Kind(b"join", STATE_FIX)


@dataclass(frozen=True)
class Snapshot:
    """The state of a join between two bundles. The join may continue while the snapshot is encoded.

    Attributes:
        header: of the head, without buckets and segments.
        sections: of the head.
        buckets: each with the segments that are stored already and the slices that become segments, in order.
    """

    header: Mapping[str, Any]
    sections: Mapping[str, bytes]
    buckets: Sequence[tuple[Bucket, Sequence[Segment | BucketSlice]]]

    def encode(self, store: Callable[[Segment, bytes], None]) -> tuple[bytes, tuple[Segment, ...]]:
        """The head's container and the segments it names, in order; `store` first receives each new segment.

        Runs in any thread, but for one snapshot of a join at a time: it sets the segments of each bucket.
        """
        counts: list[list[int]] = []
        for bucket, parts in self.buckets:
            bucket.segments = tuple(_stored(part, store) for part in parts)
            counts.append([bucket.serial, *bucket.name, len(parts)])
        segments = tuple(segment for bucket, _ in self.buckets for segment in bucket.segments)
        header = {**self.header, "buckets": counts, "segments": segments}
        return encode_container(HEAD, header, self.sections), segments


def take_snapshot(join: Join, stored: Collection[str] = ()) -> Snapshot:
    """The state of a join directly after `decide`; segments whose names are in `stored` are not encoded again."""
    assert join.settled, "a snapshot is taken after decide"
    buckets = [bucket for bucket in join.held.buckets.values() if len(bucket)]
    sections = {"flags": b"".join(_flags(bucket) for bucket in buckets)}
    for each in join.attributions:
        suffix = section_suffix(each.number)
        if each.number:
            sections[f"flags{suffix}"] = b"".join(bucket.flags(each.number).tobytes() for bucket in buckets)
        sections |= _sections(PENDING + suffix, each.pending)
        sections |= _sections(UNDECIDED + suffix, each.undecided.in_order())
    if join.unshown is not None:
        sections |= _sections(UNSHOWN, join.unshown.waiting.in_order())
    sections |= {"links": join.held.links.tobytes(), "emitted": join.emitted_positions.rows.tobytes()}
    header = {"shard": join.shard, "keyed": keyed_by(join.config), "progress": join.progress.to_json()}
    header["counts"] = join.counts.to_json()
    return Snapshot(header, sections, [(bucket, list(_parts(bucket, stored))) for bucket in buckets])


def keyed_by(config: Config) -> dict[str, Any]:
    """The configuration that ids, shards and flags of held events depend on."""
    events = config.events
    keyed: dict[str, Any] = {"key": list(events.key), "shard": list(events.shard_columns), "shards": config.logs.shards}
    keyed |= {} if events.candidates is None else {"candidates": True}
    return keyed if config.clicks_only else keyed | {"feedbacks": [feedback.kind for feedback in config.feedbacks]}


def section_suffix(feedback: int) -> str:
    """What follows the names of the sections of a feedback."""
    return f"_{feedback}" if feedback else ""


def _sections(name: str, clicks: Clicks) -> dict[str, bytes]:
    return {name: clicks.rows.tobytes(), f"{name}_columns": pack(clicks.columns)}


def _flags(bucket: Bucket) -> bytes:
    flags = bucket.rows["flags"] | bucket.rows["closed"] * np.uint8(CLOSED)
    return flags.tobytes()


def _parts(bucket: Bucket, stored: Collection[str]) -> Iterator[Segment | BucketSlice]:
    """The segments of the bucket's rows: those in `stored`, and slices for the others."""
    before = {(segment.first, segment.stop): segment for segment in bucket.segments if segment.name in stored}
    for first, stop in pairwise([0, *cut([segment.stop for segment in bucket.segments], len(bucket))]):
        yield before.get((first, stop)) or bucket.slice(first, stop)


def _stored(part: Segment | BucketSlice, store: Callable[[Segment, bytes], None]) -> Segment:
    if isinstance(part, Segment):
        return part
    segment, encoded = encode_slice(part)
    store(segment, encoded)
    return segment
