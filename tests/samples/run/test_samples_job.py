"""The samples job on a real log: rounds, shards, crashes, lost state, second writers, deleted topics."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrays.keys import shard_of
from pipeline.configuration.config import parse_config
from pipeline.configuration.environment import crash_point_from_environment
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, FencedError, LogReplacedError, OffsetError
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import read_dead_letters
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log
from pipeline.process.crash_point import arm_crash_point
from pipeline.samples.run.in_process import run_samples
from pipeline.samples.run.rounds import Rounds
from pipeline.samples.run.status import join_status
from tests.support.manual_clock import ManualClock

NOW = 1_700_000_000_000
APPENDED = NOW + 3_600_000
"""The log's clock, behind all events: none is by a clock that runs ahead."""
W, H, R, D = 10_000, 20_000, 5_000, 1_000


class World:
    """A project in a folder with a manual clock."""

    def __init__(self, root, partitions=2, shards=2, skew_s=1_000_000, **samples):
        root.mkdir(exist_ok=True)
        settings = {"window_s": W / 1000, "horizon_s": H / 1000, "key_retention_s": R / 1000, **samples}
        config = parse_config(
            {
                "logs": {"partitions": partitions, "shards": shards},
                "events": {
                    "key": ["item"],
                    "disorder_s": D / 1000,
                    "skew_s": skew_s,
                    "impressions": {"columns": {"item": "int", "place": "string"}},
                    "clicks": {"columns": {"item": "int"}},
                },
                "samples": settings,
                "fields": [{"name": "item", "columns": ["item"]}],
            }
        )
        self.config, self.project = config, Project(root, config, ManualClock(APPENDED))
        self.log = open_log(self.project)
        self.codecs = {k: EventCodec(config.events, k, self.log) for k in ("impressions", "clicks")}

    def impression(self, at, item):
        self.append(
            "impressions", item, [self.codecs["impressions"].encode_event(NOW + at, {"item": item, "place": "p"})]
        )

    def click(self, at, item):
        self.append("clicks", item, [self.codecs["clicks"].encode_event(NOW + at, {"item": item})])

    def append(self, kind, item, values):
        self.log.append(kind, item % self.config.logs.partitions, values)

    def heartbeat(self, at):
        for kind, codec in self.codecs.items():
            for partition in range(self.config.logs.partitions):
                self.log.append(kind, partition, [codec.encode_heartbeat(NOW + at)])

    def run(self, **options):
        return run_samples(self.project, self.log, until_end=True, **options)

    def blocks(self):
        for shard in range(self.config.logs.shards):
            for record in self.log.read("samples", shard, 0):
                yield decode_sample_block(record.value)

    def samples(self):
        """(kind, item, click offset) of everything said, sorted; nothing may be there twice."""
        rows = [r for block in self.blocks() for r in block.batch.to_pylist()]
        found = [(r["kind"], r["item"], r["impression_at"], r["click_at"] or 0) for r in rows]
        assert len(set(found)) == len(found), "a sample was said twice"
        return sorted(found)

    def dead(self):
        """(reason, topic, partition, offset), sorted."""
        found = []
        for shard in range(self.config.logs.shards):
            for records in read_to_end(self.log, "dead-letters", shard):
                found += read_dead_letters(records).table.to_pylist()
        places = [(r["reason"], r["topic"], r["partition"], r["offset"]) for r in found]
        assert len(set(places)) == len(places), "a position was set aside twice"
        return sorted(places)

    def emitted(self):
        return self.samples(), self.dead()


def fill(world, seed=1, events=300):
    """A little of everything: positives, late clicks, orphans, duplicates, poison."""
    rng, at = random.Random(seed), 0
    for number in range(events):
        at += rng.choice([10, 200, 900])
        world.impression(at - rng.choice([0, 0, 0, 400, 3_000]), number)
        if rng.random() < 0.4:
            item = rng.randrange(max(0, number - 20), number + 2)
            world.click(at - rng.choice([0, 0, 500, 4_000]), item)
        if rng.random() < 0.03:
            world.append(rng.choice(["impressions", "clicks"]), number, [b"poison"])
    world.heartbeat(at + W + H)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What an undisturbed run over the log of `fill` says."""
    world = World(tmp_path_factory.mktemp("calm"))
    fill(world)
    world.run()
    said = world.emitted()
    assert {kind for kind, *_ in said[0]} == {"positive", "negative", "compensation"}
    assert len({reason for reason, *_ in said[1]}) >= 5
    return said


def test_positive_negative_and_compensation_reach_the_samples_log(tmp_path):
    world = World(tmp_path)
    for item in (1, 2, 3):
        world.impression(0, item)
    world.click(5, 1)
    world.click(W, 2)
    world.heartbeat(W)
    report = world.run()
    assert [(kind, item) for kind, item, *_ in world.samples()] == [
        ("compensation", 2), ("negative", 2), ("negative", 3), ("positive", 1),
    ]  # fmt: skip
    assert (report.events, report.rounds, report.dead_letters) == (5, 1, {})
    assert report.samples == {"compensation": 1, "negative": 2, "positive": 1}


def test_samples_of_a_shard_are_those_whose_key_hashes_to_it(tmp_path):
    world = World(tmp_path, shards=3)
    fill(world)
    world.run()
    for shard in range(3):
        blocks = [decode_sample_block(r.value) for r in world.log.read("samples", shard, 0)]
        assert blocks
        for block in blocks:
            assert block.shard == shard
            assert set(shard_of(block.batch, ["item"], 3).tolist()) == {shard}


def test_one_round_many_rounds_and_following_say_the_same(tmp_path, wanted):
    many = World(tmp_path / "many", round_records=37)
    fill(many)
    report = many.run()
    assert report.rounds > 4
    assert many.emitted() == wanted
    following = World(tmp_path / "following", round_records=37)
    fill(following)
    stop = threading.Event()
    total = sum(following.log.end_offset(k, p) for k in ("impressions", "clicks") for p in (0, 1))
    run_samples(following.project, following.log, until_end=False, stop=stop,
                progress=lambda read, _: stop.set() if read >= total else None)  # fmt: skip
    assert following.emitted() == wanted


def test_number_of_shards_does_not_change_what_is_said(tmp_path, wanted):
    for shards in (1, 3):
        world = World(tmp_path / str(shards), shards=shards)
        fill(world)
        world.run()
        assert world.emitted() == wanted


def test_run_until_end_stops_after_what_was_there_and_the_next_goes_on(tmp_path):
    world = World(tmp_path)
    world.impression(0, 1)
    world.heartbeat(W - 1)
    assert world.run().rounds == 1
    assert world.run().rounds == 0
    world.heartbeat(W)
    assert world.run().samples == {"negative": 1}


def test_sparse_clicks_do_not_run_ahead_of_dense_impressions(tmp_path):
    world = World(tmp_path, partitions=1, shards=1, round_records=50)
    for number in range(200):
        world.impression(100 * number, number)
    for number in range(0, 200, 5):
        world.click(100 * number + 50, number)
    pending = []
    world.run(progress=lambda *_: pending.append(join_status(world.project, world.log)["pending_clicks"]))
    assert len(pending) == 4
    assert max(pending) <= 1
    assert sum(kind == "positive" for kind, *_ in world.samples()) == 40


def test_round_fits_memory_however_large_its_records(tmp_path):
    world = World(tmp_path, partitions=1, shards=1)
    rows = 300_000
    columns = {"at": pa.array([NOW] * rows), "item": pa.array(np.random.default_rng(1).integers(0, 2**62, rows))}
    value = world.codecs["impressions"].encode_block(pa.record_batch(columns))
    world.log.append("impressions", 0, [value] * 40)
    (planned,) = Rounds(world.project, world.log).plan({("impressions", 0): 40, ("clicks", 0): 0})
    assert planned.stop == (64 << 20) // len(value) < 40


def test_records_are_cut_at_block_rows_and_only_the_last_of_a_bundle_flushes(tmp_path):
    world = World(tmp_path, shards=1, block_rows=4)
    for item in range(10):
        world.impression(item, item)
    world.heartbeat(W + 10)
    world.run()
    assert [(len(b), b.flush) for b in world.blocks()] == [(4, False), (4, False), (2, True)]
    times = [t for b in world.blocks() for t in b.batch.column("impression_at").to_pylist()]
    assert times == sorted(times)


def test_record_says_what_its_shard_still_needs_and_of_which_log(tmp_path):
    world = World(tmp_path, partitions=1, shards=1)
    world.impression(0, 1)
    world.impression(2 * W, 2)
    world.heartbeat(W + H + R)
    world.run()
    (block,) = world.blocks()
    assert dict(block.needed_offsets) == {"impressions/0": 0, "clicks/0": 1}
    assert dict(block.needed_watermarks) == {"clicks/0": NOW + W + H + R}
    assert block.log_ids == {t: world.log.log_id(t) for t in ("impressions", "clicks")}
    assert block.watermark_ms == NOW + W + H + R


def test_dead_letter_of_a_single_event_keeps_its_own_bytes(tmp_path):
    world = World(tmp_path, partitions=1, shards=1)
    world.click(0, 7)
    world.append("clicks", 0, [b"poison"])
    world.heartbeat(2 * D)
    world.run()
    letters = world.log.read("dead-letters", 0, 0)
    assert [r.headers["springtide.reason"] for r in letters] == ["orphan_click", "undecodable"]
    assert [r.headers["__connect.errors.offset"] for r in letters] == ["0", "1"]
    assert [r.value for r in letters] == [world.log.read("clicks", 0, o)[0].value for o in (0, 1)]


@pytest.mark.parametrize("inputs", ["whole", "trimmed"])
def test_lost_state_begins_again_where_the_samples_say(tmp_path, inputs, wanted):
    world = World(tmp_path / "lost", round_records=50)
    fill(world)
    stop = threading.Event()
    rounds = iter(range(3))
    run_samples(world.project, world.log, until_end=True, stop=stop,
                progress=lambda *_: stop.set() if next(rounds) == 2 else None)  # fmt: skip
    assert world.samples()
    shutil.rmtree(world.project.join_state)
    if inputs == "trimmed":
        for kind, partition, offset in first_needs(world):
            world.log.trim(kind, partition, offset)
    world.run()
    assert world.emitted() == wanted


def first_needs(world):
    """The lowest offset that any shard needs, per input partition."""
    last = {b.shard: b for b in world.blocks()}
    assert set(last) == {0, 1}
    for name in last[0].needed_offsets:
        kind, partition = name.split("/")
        yield kind, int(partition), min(b.needed_offsets[name] for b in last.values())


def test_lost_state_is_refused_where_the_input_no_longer_reaches_back(tmp_path):
    world = World(tmp_path)
    world.impression(0, 2)
    world.click(1, 2)
    world.impression(5, 4)
    world.run()
    shutil.rmtree(world.project.join_state)
    world.log.trim("impressions", 0, 1)
    with pytest.raises(OffsetError, match=r"impressions/0 begins at offset 1, .* needs it from 0. hint"):
        world.run()


@pytest.mark.parametrize("topic", ["impressions", "clicks", "samples", "dead-letters"])
def test_topic_made_again_is_refused(tmp_path, topic):
    world = World(tmp_path)
    fill(world, events=20)
    world.run()
    before = world.log.log_id(topic)
    world.log.delete_topic(topic)
    world.log.create_topic(topic, 2)
    with pytest.raises(LogReplacedError, match=f"topic {topic} .* {world.log.log_id(topic)}, .* {before}. hint"):
        world.run()


def test_input_that_lost_records_which_were_read_is_refused(tmp_path):
    world = World(tmp_path, shards=1, partitions=1)
    world.impression(0, 1)
    shutil.copytree(world.project.logs / "impressions", tmp_path / "kept")
    world.impression(10, 2)
    world.run()
    world.log.close()
    shutil.rmtree(world.project.logs / "impressions")
    shutil.copytree(tmp_path / "kept", world.project.logs / "impressions")
    lost = World(tmp_path, shards=1, partitions=1)
    with pytest.raises(OffsetError, match="impressions/0 ends at offset 1, the join has read it to 2: it has lost"):
        lost.run()


def test_second_join_fences_the_first_which_stops(tmp_path, wanted):
    world = World(tmp_path, round_records=40)
    fill(world)
    second = []

    def take_over(*_):
        if not second:
            second.append(Rounds(world.project, world.log))

    with pytest.raises(FencedError, match="is fenced"):
        world.run(progress=take_over)
    world.run()
    assert world.emitted() == wanted


@pytest.mark.parametrize("kind", ["join", "rows"])
def test_damaged_state_file_is_refused_by_name(tmp_path, kind):
    world = World(tmp_path)
    fill(world, events=20)
    world.run()
    (path, *_) = sorted(world.project.join_state.glob(f"*.{kind}"))
    path.write_bytes(path.read_bytes()[:-3] + b"xxx")
    with pytest.raises(DamagedError, match=f"{path.name}.*hint: delete"):
        world.run()
    manifest = world.project.join_state / "ROUND.json"
    manifest.write_text(manifest.read_text().replace('"number": 1', '"number": 2'))
    with pytest.raises(DamagedError, match=r"ROUND\.json"):
        world.run()


def test_status_tells_offsets_lag_watermarks_and_what_is_held(tmp_path):
    world = World(tmp_path, shards=1, partitions=1)
    assert join_status(world.project, world.log)["rounds"] == 0
    world.impression(0, 1)
    world.impression(10, 2)
    world.click(100, 3)
    world.run()
    world.click(101, 2)
    status = join_status(world.project, world.log)
    assert (status["rounds"], status["held_impressions"], status["pending_clicks"]) == (1, 2, 1)
    assert status["inputs"]["clicks/0"] == {"offset": 1, "end": 2, "lag": 1, "watermark_ms": NOW + 100 - D}
    assert status["bytes"] > 0


@pytest.mark.parametrize("point", ["samples.before_append:3", "samples.after_append:4", "samples.after_state:2"])
def test_killed_anywhere_the_next_run_says_the_rest_once(tmp_path, point, wanted):
    world = World(tmp_path, round_records=60)
    fill(world)
    child = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "SPRINGTIDE_CRASH_AT": point},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-2000:]
    world.run()
    assert world.emitted() == wanted


if __name__ == "__main__":
    arm_crash_point(crash_point_from_environment())
    print(json.dumps(str(World(Path(sys.argv[1]), round_records=60).run())))
