"""The join goes on behind input that was trimmed before it was read: with what it held, and nothing doubled."""

import pytest

from pipeline.errors import OffsetError
from pipeline.samples.run.skip import plan_skip, skip
from pipeline.samples.run.start_offsets import followed_ranges
from pipeline.samples.run.stored_shard import StoredShard
from tests.samples.run.test_samples_job import D, H, R, W, World


@pytest.fixture
def world(tmp_path):
    """Of four impressions one is labelled, one held, one trimmed before it is read with its click, one still there."""
    made = World(tmp_path, partitions=1)
    made.impression(0, 1)
    made.impression(0, 9)
    made.click(1, 9)
    made.run()
    made.impression(100, 2)
    made.click(150, 2)
    made.impression(200, 3)
    made.click(201, 1)
    made.click(202, 3)
    made.log.trim("impressions", 0, 3)
    made.log.trim("clicks", 0, 2)
    made.heartbeat(W + H + R + D + 1_000)
    return made


def said(world):
    return [(kind, item) for kind, item, *_ in world.samples()], [reason for reason, *_ in world.dead()]


def test_nothing_is_passed_over_while_everything_is_there(tmp_path):
    world = World(tmp_path)
    world.impression(0, 1)
    world.run()
    assert plan_skip(world.project, world.log) == []


def test_what_is_gone_is_named_and_passed_over_and_what_was_held_stays(world):
    with pytest.raises(OffsetError, match="begins at offset 3, offset 2 was removed"):
        world.run()
    gone = plan_skip(world.project, world.log)
    assert [(r.topic, r.partition, r.start, r.stop) for r in gone] == [("impressions", 0, 2, 3), ("clicks", 0, 1, 2)]
    skip(world.project, world.log, gone)
    assert plan_skip(world.project, world.log) == []
    world.run()
    assert said(world) == ([("positive", 1), ("positive", 3), ("positive", 9)], [])


def test_live_shards_start_behind_what_was_passed_over(world):
    for shard in range(2):
        StoredShard(world.project, world.log, shard)
    skip(world.project, world.log, plan_skip(world.project, world.log))
    assert [(r.kind, r.start) for r in followed_ranges(world.project, world.log)] == [("impressions", 3), ("clicks", 2)]


def test_a_planned_skip_changes_nothing(world):
    before = plan_skip(world.project, world.log)
    assert before == plan_skip(world.project, world.log)


def test_shard_without_state_is_not_led_past_what_it_needs(world):
    for path in world.project.join_state.iterdir():
        path.unlink()
    with pytest.raises(OffsetError, match="lost its state"):
        plan_skip(world.project, world.log)
