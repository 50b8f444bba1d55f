"""Foreign records in the join's own samples partition: named, and skipped once their offset is quarantined."""

import shutil

import pytest

from pipeline.errors import RecordError
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.samples.run.status import join_status
from pipeline.versions.ledger import sample_records
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


def quarantine(world, shard, offset, stop=None):
    store = VersionStore(world.project)
    positions = ((offset, 0), (offset + 1 if stop is None else stop, 0))
    store.ledger.quarantines.add(Quarantine(0, "foreign", positions=positions, shard=shard))
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


@pytest.mark.parametrize("lost_state", [False, True])
def test_foreign_records_in_a_row_are_passed_over_by_one_range(world, lost_state, monkeypatch):
    monkeypatch.setattr(sample_records, "_READ_AT_ONCE", 2)
    offset = world.log.append("samples", 1, [b"a", b"b", b"c", b"d", b"e"])
    if lost_state:
        shutil.rmtree(world.project.join_state)
    more(world)
    with pytest.raises(RecordError, match=f"partition 1, offset {offset}: ") as refused:
        world.run()
    assert (refused.value.offset, refused.value.stop, refused.value.value) == (offset, offset + 5, b"a")
    assert f"no record up to offset {offset + 4} can be read" in str(refused.value)
    assert str(refused.value).endswith(f"springtide quarantine add --shard 1 --offsets {offset}..{offset + 5}")
    quarantine(world, 1, offset, offset + 5)
    world.run()
    records = [r for shard in range(2) for r in world.log.read("samples", shard, 0) if len(r.value) > 1]
    found = [item for r in records for item in decode_sample_block(r.value).batch.column("item").to_pylist()]
    assert sorted(found) == list(range(40))


def test_a_row_of_foreign_records_ends_at_a_record_of_the_join(world):
    first = world.log.append("samples", 1, [b"a"])
    world.log.append("samples", 1, [world.log.read("samples", 1, 0)[0].value, b"b"])
    with pytest.raises(RecordError) as refused:
        world.run()
    assert (refused.value.offset, refused.value.stop) == (first, first + 1)


@pytest.mark.parametrize("lost_state", [False, True])
def test_status_shows_what_the_join_cannot_read_until_it_is_in_quarantine(world, lost_state):
    offset = world.log.append("samples", 1, [b"hello", b""])
    if lost_state:
        shutil.rmtree(world.project.join_state)
    (shard, problem), *others = join_status(world.project, world.log)["problems"].items()
    assert (shard, others) == ("1", [])
    assert f"topic samples, partition 1, offset {offset}: " in problem
    assert f"springtide quarantine add --shard 1 --offsets {offset}..{offset + 2}" in problem
    quarantine(world, 1, offset, offset + 2)
    assert join_status(world.project, world.log)["problems"] == {}


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
