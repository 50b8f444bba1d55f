"""The join's state is bounded by durations times the rate, however long it runs and however large the backlog."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.logs.beam.source_block import SourceBlock
from pipeline.samples.run.readings import shard_readings
from pipeline.samples.run.start_offsets import followed_ranges
from pipeline.samples.run.stored_shard import StoredShard
from pipeline.telemetry import metrics
from tests.samples.run.test_samples_job import APPENDED, NOW, D, H, R, W, World
from tests.samples.run.test_stored_shards import Source

LIFE_MS = W + H + R
EVERY_MS = 100
PER_LIFE = LIFE_MS // EVERY_MS
LIVES = 24
PIECE = 60
MOST_HELD = (LIFE_MS + D) / EVERY_MS + 512 + 2 * PIECE
"""A bucket is removed as a whole and holds up to 512 rows if events are sparse. Blocks of two inputs alternate."""


def steady(world, lives):
    """An impression every 100 ms and a click for one in three, for so many lives of an impression."""
    assert lives * LIFE_MS < APPENDED - NOW
    numbers = range(lives * PER_LIFE)
    shown, pressed = (world.codecs[kind].encode_event for kind in ("impressions", "clicks"))
    world.append("impressions", 0, [shown(NOW + n * EVERY_MS, {"item": n, "place": "p"}) for n in numbers])
    world.append("clicks", 0, [pressed(NOW + n * EVERY_MS + 50, {"item": n}) for n in numbers[::3]])


def pieces(world, element):
    """A partition in blocks of equal durations: 60 impressions, or their clicks."""
    at, max_event_time_ms, end = element.start, element.max_event_time_ms, world.log.end_offset(element.topic, 0)
    size = PIECE if element.kind == "impressions" else PIECE // 3
    while at < end:
        records = world.log.read(element.topic, 0, at)[:size]
        decoded = world.codecs[element.kind].decode(records, element.topic, 0, max_event_time_ms)
        yield SourceBlock.of(at, decoded)
        at, max_event_time_ms = decoded.block.next_offset, decoded.max_event_time_ms


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """(held, reported bytes, bytes in the folder, files in it) each time state was stored, over many lives."""
    world = World(tmp_path_factory.mktemp("steady"), partitions=1, shards=1)
    steady(world, LIVES)
    live, found = StoredShard(world.project, world.log, 0), []
    for bundle in zip(*(pieces(world, element) for element in followed_ranges(world.project, world.log)), strict=False):
        world.project.clock.wait(60)
        live.process(bundle)
        live.wait_stored()
        reported = {r.metric: r.value for r in shard_readings(live.join_shard)}
        files = [path for path in world.project.join_state.rglob("*") if path.suffix in (".join", ".rows")]
        size = sum(path.stat().st_size for path in files)
        found.append((reported[metrics.JOIN_HELD], reported[metrics.JOIN_STATE], size, len(files)))
    assert len(found) >= 0.9 * LIVES * PER_LIFE / PIECE
    return found


def test_held_impressions_are_bounded_by_the_durations(grown):
    assert max(held for held, *_ in grown) <= MOST_HELD < LIVES * PER_LIFE / 8
    assert grown[-1][0] > PER_LIFE / 2


def test_stored_state_stops_growing_and_unnamed_files_are_deleted(grown):
    half = len(grown) // 2
    early, late = grown[:half], grown[half:]
    for number in (1, 2, 3):
        assert max(row[number] for row in late) <= 1.2 * max(row[number] for row in early)
    assert all(reported == size for _, reported, size, _ in grown)


BACKLOG_LIVES, RECORD_ROWS = 6, 100


def backlog(world):
    """An impression each ms and a click for one in three, packed, for six lives of an impression."""
    rows = BACKLOG_LIVES * LIFE_MS
    at = NOW + np.arange(rows)
    shown = pa.record_batch({"at": at, "item": np.arange(rows), "place": pa.array(["p"] * rows)})
    pressed = pa.record_batch({"at": at[::3] + 1, "item": np.arange(rows)[::3]})
    for kind, batch in (("impressions", shown), ("clicks", pressed)):
        starts_at = range(0, batch.num_rows, RECORD_ROWS)
        world.log.append(kind, 0, [world.codecs[kind].encode_block(batch.slice(s, RECORD_ROWS)) for s in starts_at])


@pytest.mark.parametrize("first", ["impressions", "clicks"])
def test_inputs_with_a_backlog_are_aligned_and_no_more_is_held_than_usual(tmp_path, first):
    world = World(tmp_path, partitions=1, shards=1)
    backlog(world)
    elements = sorted(followed_ranges(world.project, world.log), key=lambda element: element.kind != first)
    sources = [Source(world, element) for element in elements]
    live, held, block_rows = StoredShard(world.project, world.log, 0), 0, 0
    while not all(source.at_end() for source in sources):
        for source in sources:
            spans = source.turn()
            block_rows = max([block_rows, *(len(span.block) for span in spans)])
            live.process(spans)
            held = max(held, len(live.join_shard.join.held))
    # One input is ahead of the other by a window and a block at most; buckets are a sixteenth of a life wide.
    most = (LIFE_MS + D + W) * (1 + 1 / 16) + 2 * block_rows
    assert held <= most < BACKLOG_LIVES * LIFE_MS / 2
