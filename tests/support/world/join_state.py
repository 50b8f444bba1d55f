"""A join's state in memory: what `state_files` writes, as bytes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.arrays.block import EventKind
from pipeline.configuration.config import Config
from pipeline.formats.container import Container
from pipeline.samples.held.segment import Segment
from pipeline.samples.join.join import Join
from pipeline.samples.state.restore import load_join
from pipeline.samples.state.segment_codec import SEGMENT
from pipeline.samples.state.snapshot import HEAD, take_snapshot


@dataclass(frozen=True)
class SavedJoin:
    """The state of a join.

    Attributes:
        head: encoded.
        segments: those that the head names, in order.
        new: by name, the encoded segments that were not stored yet.
    """

    head: bytes
    segments: tuple[Segment, ...]
    new: Mapping[str, bytes]


def save_join(join: Join, stored: Collection[str] = ()) -> SavedJoin:
    """The state, without segments whose names are in `stored`; directly after `decide`."""
    new: dict[str, bytes] = {}
    head, segments = take_snapshot(join, stored).encode(lambda segment, encoded: new.update({segment.name: encoded}))
    return SavedJoin(head, segments, new)


def encode_join(join: Join) -> list[bytes]:
    """The head and its segments, encoded; directly after `decide`."""
    saved = save_join(join)
    return [saved.head, *(saved.new[segment.name] for segment in saved.segments)]


def decode_join(
    config: Config, shard: int, partitions: Mapping[EventKind, int], encoded: Sequence[bytes], name: str = "join state"
) -> Join:
    """The join that `encode_join` encoded; `name` is for messages."""
    head, *segments = encoded
    containers = (Container.of(segment, SEGMENT, name=name) for segment in segments)
    return load_join(config, shard, partitions, Container.of(head, HEAD, name=name), containers)
