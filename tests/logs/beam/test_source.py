"""Beam's source reads a partition once, in bounded pieces, with the right watermark, and refuses another log."""

from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.errors import LogReplacedError, OffsetError
from pipeline.logs.beam.closed_range import ReadClosedRange
from pipeline.logs.beam.partition_range import BLOCK_RECORDS, RUN_RECORDS, PartitionRange, read_next
from pipeline.logs.beam.source_block import ByReference
from pipeline.logs.beam.worker import register, release
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.interface.log import Log
from pipeline.logs.interface.record_run import RecordRun
from pipeline.logs.open import open_log
from tests.support.manual_clock import ManualClock

NOW = 1_700_000_000_000
DISORDER = 1_000


@pytest.fixture
def world(tmp_path):
    config = parse_config(
        {
            "events": {
                "key": ["item"],
                "disorder_s": DISORDER / 1000,
                "impressions": {"columns": {"item": "int"}},
                "clicks": {"columns": {"item": "int"}},
            },
            "fields": [{"name": "item", "columns": ["item"]}],
        }
    )
    project = Project(tmp_path, config, ManualClock(NOW + 3_600_000))
    log = open_log(project)
    handle = register(project, log)
    yield World(project, log, handle)
    release(handle)
    log.close()


class World:
    def __init__(self, project, log, handle):
        self.project, self.log, self.handle = project, log, handle
        self.codec = EventCodec(project.config.events, "impressions", log)

    def append(self, *times):
        self.log.append("impressions", 0, [self.codec.encode_event(t, {"item": t % 7}) for t in times])

    def range(self, start, stop, max_event_time_ms=None):
        return PartitionRange(
            "impressions", "impressions", 0, start, stop, max_event_time_ms, self.log.log_id("impressions"), 1
        )

    def read(self, element):
        """All blocks and dead letters of a range."""
        transport = ByReference(self.handle)
        found = [transport.unpack(packed) for packed in ReadClosedRange(self.handle, transport).process(element)]
        return [one.block for one in found], [one.dead for one in found if one.dead is not None]


def test_closed_range_holds_what_lies_between_its_offsets(world):
    world.append(*range(NOW, NOW + 10))
    blocks, dead = world.read(world.range(2, 7))
    assert np.concatenate([b.offsets for b in blocks]).tolist() == [2, 3, 4, 5, 6]
    assert blocks[-1].next_offset == 7
    assert dead == []


def test_resumed_range_keeps_its_watermark(world):
    world.append(NOW, NOW + 50_000)
    blocks, _ = world.read(world.range(0, 2))
    world.append(NOW + 50_000 - DISORDER, NOW + 50_000 - DISORDER - 1)
    max_event_time_ms = blocks[-1].watermark_ms + DISORDER
    (late,), _ = world.read(world.range(2, 4, max_event_time_ms))
    assert (late.at_ms < late.watermarks_ms).tolist() == [False, True]


def test_range_that_the_log_ends_before_is_refused_with_both_ends(world):
    world.append(NOW, NOW + 1)
    with pytest.raises(OffsetError, match=r"impressions/0 ends at offset 2, the range to read ends at 5: .* hint"):
        world.read(world.range(0, 5))


@dataclass(frozen=True)
class ByRuns:
    """A log that reads runs, as Kafka's does."""

    log: Log

    def read_run(self, topic, partition, start, limits):
        return RecordRun.of(self.log.read(topic, partition, start, limits), start)


@pytest.mark.parametrize(("by_runs", "most"), [(False, BLOCK_RECORDS), (True, RUN_RECORDS)])
def test_a_block_ends_with_its_records_later_where_the_log_reads_runs(world, by_runs, most):
    world.append(*([NOW] * (most + 1)))
    log = ByRuns(world.log) if by_runs else world.log
    decoded, read = read_next(log, world.codec, world.range(0, None))
    assert (len(decoded.block), decoded.block.next_offset, read.records) == (most, most, most)
    decoded, read = read_next(log, world.codec, world.range(most, None, decoded.max_event_time_ms))
    assert (len(decoded.block), read.records) == (1, 1)


def test_heartbeat_alone_makes_a_block_that_moves_the_watermark(world):
    world.log.append("impressions", 0, [world.codec.encode_heartbeat(NOW + 5)])
    (block,), _ = world.read(world.range(0, 1))
    assert (len(block), block.watermark_ms, block.next_offset) == (0, NOW + 5, 1)


def test_unreadable_record_leaves_as_a_dead_letter_and_the_rest_goes_on(world):
    world.append(NOW)
    world.log.append("impressions", 0, [b"poison"])
    world.append(NOW + 1)
    blocks, dead = world.read(world.range(0, 3))
    assert sum(len(b) for b in blocks) == 2
    assert [letters.table.column("partition").to_pylist() for letters in dead] == [[0]]


def test_topic_made_again_is_refused_by_name_with_both_ids(world):
    world.append(NOW)
    element = world.range(0, 1)
    world.log.delete_topic("impressions")
    world.log.create_topic("impressions", 1)
    world.append(NOW)
    now = world.log.log_id("impressions")
    with pytest.raises(LogReplacedError, match=f"topic impressions .* {now}, .* {element.log_id}. hint"):
        world.read(element)
    assert isinstance(world.handle.worker().failure, LogReplacedError)


def test_offset_that_was_trimmed_is_refused(world):
    world.append(NOW, NOW + 1, NOW + 2)
    world.log.trim("impressions", 0, 2)
    with pytest.raises(OffsetError, match="begins at offset 2, offset 1 was removed"):
        world.read(world.range(1, 3))
