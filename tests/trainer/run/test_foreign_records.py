"""A foreign or damaged record in the samples topic halts the shard by name; an operator decides to skip it."""

import threading

import pytest

from pipeline.errors import HaltedError
from pipeline.logs.events.sample_block import SampleBlock, encode_sample_block
from pipeline.logs.open import open_log
from pipeline.trainer.run.in_process import run_train
from pipeline.trainer.run.shard_session import ShardSession
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import START_MS, append_samples, current_digest, make_project, make_samples

ROWS = 200
SAMPLES = make_samples(1, ROWS)


def foreign_values():
    block = encode_sample_block(SampleBlock(0, SAMPLES, {}, {}, 0))
    flipped = bytearray(block)
    flipped[len(block) // 2] ^= 1
    no_times = SAMPLES.drop_columns(["impression_at"])
    return {
        "text": b"hello",
        "nothing": b"",
        "a frame": b"\x00garbage" * 9,
        "an unknown schema": b"\x00\x00\x00\x00\x01\xff",
        "half a record": block[: len(block) // 2],
        "a longer record": block + b"x",
        "another shard's": encode_sample_block(SampleBlock(3, SAMPLES, {}, {}, 0)),
        "without times": encode_sample_block(SampleBlock(0, no_times, {}, {}, 0)),
    }


@pytest.fixture
def shop(tmp_path):
    project = make_project(tmp_path)
    log = open_log(project)
    append_samples(log, project, SAMPLES)
    yield project, log
    log.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("undisturbed"))
    log = open_log(project)
    append_samples(log, project, SAMPLES)
    append_samples(log, project, make_samples(1, ROWS, first=ROWS))
    run_train(project, log, until_end=True)
    return rows_of(project)


def rows_of(project):
    """The rows of CURRENT: they do not depend on offsets."""
    store = VersionStore(project)
    return {name: change.rows.tobytes() for name, change in store.restore(store.current(0)).fields.items()}


@pytest.mark.parametrize("kind", foreign_values())
def test_a_foreign_record_halts_with_its_place_and_the_command_that_passes_over_it(shop, kind, undisturbed):
    project, log = shop
    value = foreign_values()[kind]
    offset = log.append("samples", 0, [value])
    append_samples(log, project, make_samples(1, ROWS, first=ROWS))
    with pytest.raises(HaltedError) as halted:
        run_train(project, log, until_end=True)
    message = str(halted.value)
    assert f"topic samples, partition 0, offset {offset}: " in message
    assert (
        f"run: springtide quarantine add --shard 0 --offsets {offset}..{offset + 1}, then springtide resume" in message
    )
    store = VersionStore(project)
    halt = store.ledger.halts.get(0)
    assert f"offset {offset}" in halt.reason
    assert (project.root / halt.batch_file).read_bytes() == value
    with pytest.raises(HaltedError, match=f"offsets {offset}"):
        run_train(project, log, until_end=True)
    store.ledger.quarantines.add(Quarantine(0, "foreign", positions=((offset, 0), (offset + 1, 0)), shard=0))
    store.ledger.halts.clear(0)
    run_train(project, log, until_end=True)
    assert rows_of(project) == undisturbed


def test_foreign_records_in_a_row_are_named_by_one_command(shop):
    project, log = shop
    offset = log.append("samples", 0, [b"a", b"", b"c"])
    with pytest.raises(HaltedError) as halted:
        run_train(project, log, until_end=True)
    command = f"run: springtide quarantine add --shard 0 --offsets {offset}..{offset + 3}, then springtide resume"
    assert command in str(halted.value)


def test_what_precedes_the_foreign_record_is_learned(shop):
    project, log = shop
    log.append("samples", 0, [b"hello"])
    with pytest.raises(HaltedError):
        run_train(project, log, until_end=True)
    store = VersionStore(project)
    assert store.ledger.version(store.current(0)).samples_seen == ROWS


def quarantine_from(store, at_ms):
    store.ledger.quarantines.add(Quarantine(0, "bots", times_ms=(at_ms, at_ms + 10**9)))


def test_the_position_moves_behind_a_quarantined_tail(shop):
    project, log = shop
    store = VersionStore(project)
    run_train(project, log, until_end=True)
    before = store.ledger.version(store.current(0))
    quarantine_from(store, START_MS + ROWS * 1000)
    append_samples(log, project, make_samples(1, ROWS, first=ROWS))
    run_train(project, log, until_end=True)
    after = store.ledger.version(store.current(0))
    assert (after.offset, after.row) == (log.end_offset("samples", 0), 0)
    assert after.samples_seen == before.samples_seen
    current = store.current(0)
    run_train(project, log, until_end=True)
    assert store.current(0) == current


def test_a_tail_of_foreign_records_in_quarantine_is_passed_too(shop):
    project, log = shop
    store = VersionStore(project)
    first = log.append("samples", 0, [b"a", b"b"])
    store.ledger.quarantines.add(Quarantine(0, "foreign", positions=((first, 0), (first + 2, 0)), shard=0))
    run_train(project, log, until_end=True)
    assert store.ledger.version(store.current(0)).offset == log.end_offset("samples", 0)


def test_samples_that_wait_for_a_full_batch_hold_the_position_back(tmp_path):
    project = make_project(tmp_path)
    log, store = open_log(project), VersionStore(project)
    rest = encode_sample_block(SampleBlock(0, SAMPLES.slice(0, 70), {}, {}, 0))  # 64 and 6, no flush flag
    log.create_topic("samples", 1)
    log.append("samples", 0, [rest, b"foreign"])
    store.ledger.quarantines.add(Quarantine(0, "foreign", positions=((1, 0), (2, 0)), shard=0))
    session = ShardSession(project, log, store, 0)
    session.train(threading.Event(), log.end_offset("samples", 0))
    session.close()
    version = store.ledger.version(store.current(0))
    assert (version.offset, version.row, version.samples_seen) == (0, 64, 64)
    assert current_digest(store)
