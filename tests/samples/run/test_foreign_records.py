"""Foreign records in the join's own samples partition: named, and passed over once their offset is quarantined."""

import shutil

import pytest

from pipeline.errors import RecordError
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.version_store import VersionStore
from tests.samples.run.test_samples_job import H, W, World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "world")
    for item in range(20):
        world.impression(item * 100, item)
    world.heartbeat(W + 5_000)
    world.run()
    assert world.samples()
    return world


def quarantine(world, shard, offset):
    store = VersionStore(world.project)
    store.ledger.quarantines.add(Quarantine(0, "foreign", positions=((offset, 0), (offset + 1, 0)), shard=shard))
    store.close()


def more(world):
    for item in range(20, 40):
        world.impression(W + 6_000 + item * 100, item)
    world.heartbeat(3 * W + H)


def items(world, foreign):
    """Items of all samples except those of the foreign record, sorted."""
    found = []
    for shard in range(2):
        for record in world.log.read("samples", shard, 0):
            if (shard, record.offset) != foreign:
                found += decode_sample_block(record.value).batch.column("item").to_pylist()
    return sorted(found)


@pytest.mark.parametrize("lost_state", [False, True])
@pytest.mark.parametrize("value", [b"hello", b"", b"\x00" * 40])
def test_a_foreign_record_is_named_and_passed_over_when_quarantined(world, lost_state, value):
    offset = world.log.append("samples", 1, [value])
    if lost_state:
        shutil.rmtree(world.project.join_state)
    more(world)
    with pytest.raises(RecordError, match=f"topic samples, partition 1, offset {offset}: ") as refused:
        world.run()
    assert f"springtide quarantine add --shard 1 --offsets {offset}..{offset + 1}" in str(refused.value)
    quarantine(world, 0, offset)
    with pytest.raises(RecordError):
        world.run()
    quarantine(world, 1, offset)
    world.run()
    assert items(world, (1, offset)) == list(range(40))


def test_a_quarantined_record_of_the_join_itself_still_counts_as_emitted(world):
    for shard in range(2):
        for offset in range(world.log.end_offset("samples", shard)):
            quarantine(world, shard, offset)
    before = world.emitted()
    shutil.rmtree(world.project.join_state)
    world.run()
    assert world.emitted() == before


def test_a_foreign_record_among_the_dead_letters_is_passed_over(world):
    headers = {"springtide.reason": "x", "springtide.row": "no number"}
    world.log.append("dead-letters", 0, [b"hello", b""], headers=[{}, headers])
    before = world.samples()
    shutil.rmtree(world.project.join_state)
    world.run()
    assert world.samples() == before
