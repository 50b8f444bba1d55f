"""Stored shards emit what a run in process emits, whatever a runner loses, repeats, reorders or kills."""

import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import FencedError, LogError, OffsetError, VersionError
from pipeline.logs.beam.followed_partition import FollowPartition
from pipeline.logs.beam.source_block import ByValue, SourceBlock
from pipeline.logs.beam.worker import register, release
from pipeline.samples.run.start_offsets import followed_ranges
from pipeline.samples.run.status import join_status
from pipeline.samples.run.stored_shard import Stored, StoredShard, StoredShards
from pipeline.samples.state.state_files import latest_state
from pipeline.telemetry import metrics
from tests.samples.run.test_samples_job import NOW, D, H, W, World
from tests.support.world.beam_parts import Cell, Timer

OTHERS_WAITED_FOR_S = 60
"""A reader that is alone has given the others up by then."""


class Source:
    """Beam's source of one partition, turn by turn."""

    def __init__(self, world, element):
        self.world, self.left = world, Cell()
        self.handle = register(world.project, world.log)
        self.source = FollowPartition(self.handle, ByValue())
        self.source.setup()
        self.source.process((0, element), self.left, Timer())

    def turn(self):
        timer = Timer()
        spans = [ByValue().unpack(e) for e in self.source.read(self.left, timer)]
        assert timer.is_set
        return spans

    def at_end(self):
        left = self.left.value
        return left.start == self.world.log.end_offset(left.topic, left.partition)

    def all(self):
        spans = []
        while not self.at_end():
            spans += self.turn()
        release(self.handle)
        return spans


def pieces_of(world, cut=7):
    """Everything the inputs hold from where the shards begin, as spans of few records, partition by partition."""
    found = []
    for element in followed_ranges(world.project, world.log):
        end, at, mark = world.log.end_offset(element.topic, element.partition), element.start, element.max_event_time_ms
        while at < end:
            records = world.log.read(element.topic, element.partition, at)[:cut]
            decoded = world.codecs[element.kind].decode(records, element.topic, element.partition, mark)
            found.append(SourceBlock.of(at, decoded))
            at, mark = decoded.block.next_offset, decoded.max_event_time_ms
    return found


def ends_of(world):
    """What the source emits of partitions that are read to their ends: spans of nothing."""
    last = {(s.block.kind, s.block.partition): s.block for s in pieces_of(world)}
    for (kind, partition), block in last.items():
        mark = block.watermark_ms + D
        yield SourceBlock.of(block.next_offset, world.codecs[kind].empty_run(kind, partition, mark, block.next_offset))


def split(block, world):
    """(shard, its part) for every shard."""
    return block.split(world.config.events.shard_columns, world.config.logs.shards)


def bundles_for(world, shard, spans, rng):
    parts = [part for span in spans for to, part in split(span, world) if to == shard]
    while parts:
        size = rng.randrange(1, 6)
        yield parts[:size]
        parts = parts[size:]


def join_all(world, spans, rng, reopen=0.0):
    """Every shard takes all spans in bundles; before some of them it is opened anew, as by a new worker."""
    for shard in range(world.config.logs.shards):
        live = StoredShard(world.project, world.log, shard)
        for bundle in bundles_for(world, shard, spans, rng):
            if rng.random() < reopen:
                live = StoredShard(world.project, world.log, shard)
            live.process(bundle)
        live.process([part for span in ends_of(world) for to, part in split(span, world) if to == shard])


def test_bundles_in_order_say_what_a_run_in_process_says(world, wanted):
    join_all(world, pieces_of(world), random.Random(1))
    assert world.emitted() == wanted


@pytest.mark.parametrize("seed", range(6))
def test_lost_repeated_and_reordered_spans_change_nothing(world, wanted, seed):
    rng = random.Random(seed)
    spans = pieces_of(world)
    kept = [s for s in spans if rng.random() > 0.5] + [s for s in spans if rng.random() < 0.3]
    rng.shuffle(kept)
    join_all(world, kept, rng)
    assert world.emitted() == wanted


@pytest.mark.parametrize("seed", range(4))
def test_workers_that_come_and_go_change_nothing(world, wanted, seed):
    join_all(world, pieces_of(world), random.Random(seed), reopen=0.3)
    assert world.emitted() == wanted


def test_backlog_is_emitted_in_the_order_of_decisions_however_its_partitions_are_read(tmp_path):
    world = World(tmp_path, shards=1)
    for number in range(400):
        world.impression(number * 100, number)
    for number in range(0, 400, 3):
        world.click(number * 100 + 3_000, number)
    world.heartbeat(40_000 + W)
    spans = [replace(span, more=span.block.next_offset < end_of(world, span)) for span in pieces_of(world)]
    live = StoredShard(world.project, world.log, 0)
    for span in sorted(spans, key=lambda span: span.block.kind):
        live.process([span])
    decided = [row["click_at"] or row["impression_at"] + W for b in world.blocks() for row in b.batch.to_pylist()]
    assert len(decided) == 400
    assert (np.maximum.accumulate(decided) - decided).max() <= 2 * D


def test_input_that_was_not_seen_yet_holds_back_what_others_decide(tmp_path):
    world = World(tmp_path, partitions=2, shards=1)
    world.impression(0, 2)
    world.click(5, 2)
    spans = {(s.block.kind, s.block.partition): s for s in pieces_of(world)}
    live = StoredShard(world.project, world.log, 0)
    live.process(spans.values())
    assert world.samples() == []
    for kind in ("impressions", "clicks"):
        live.process([SourceBlock.of(0, world.codecs[kind].empty_run(kind, 1, None, 0))])
    assert [kind for kind, *_ in world.samples()] == ["positive"]


def end_of(world, span):
    return world.log.end_offset(span.block.kind, span.block.partition)


def test_state_is_kept_beside_the_runner_and_gone_on_from(world, wanted):
    spans = pieces_of(world)
    folders = world.project.join_state.glob
    live = StoredShard(world.project, world.log, 0)
    live.process([part for span in spans[: len(spans) // 2] for to, part in split(span, world) if to == 0])
    assert not list(folders("live-0-*"))
    world.project.clock.wait(60)
    live.process([next(part for to, part in split(spans[len(spans) // 2], world) if to == 0)])
    live.wait_stored()
    assert len(list(folders("live-0-*/*.join"))) == 1
    first = {(r.kind, r.partition): r.start for r in followed_ranges(world.project, world.log)}
    assert min(first.values()) == 0  # of shard 1, which has read nothing
    join_all(world, pieces_of(world), random.Random(3))
    assert world.emitted() == wanted


def test_one_that_was_taken_over_spoils_no_state_of_the_other(world, wanted):
    spans = pieces_of(world)
    parts = [next(part for to, part in split(span, world) if to == 0) for span in spans]
    zombie, clock = StoredShard(world.project, world.log, 0), world.project.clock
    newer = StoredShard(world.project, world.log, 0)
    for live, bundle in ((newer, parts[:30]), (zombie, []), (newer, parts[30:])):
        clock.wait(60)
        live.process(bundle)
        live.wait_stored()
    (folder,) = world.project.join_state.glob("live-0-*")
    assert (folder / "ROUND.json").exists()
    join_all(world, spans, random.Random(1))
    assert world.emitted() == wanted


def test_state_goes_on_by_its_segments_from_opening_to_opening(world, wanted):
    parts = [next(part for to, part in split(span, world) if to == 0) for span in pieces_of(world)]
    for at in range(0, len(parts), 4):
        live = StoredShard(world.project, world.log, 0)
        world.project.clock.wait(60)
        live.process(parts[at : at + 4])
        live.wait_stored()
        assert len(list(world.project.join_state.glob("live-0-*"))) == 1
    join_all(world, pieces_of(world), random.Random(1))
    assert world.emitted() == wanted


def test_state_is_kept_while_the_shard_goes_on_and_no_sooner_than_five_seconds_after_the_last(world):
    parts = [next(part for to, part in split(span, world) if to == 0) for span in pieces_of(world)]
    live, clock = StoredShard(world.project, world.log, 0), world.project.clock
    kept = []
    for number, part in enumerate(parts[:12]):
        clock.wait(2)
        live.process([part])
        live.wait_stored()
        found = latest_state(world.project.join_state, 0)
        if found is not None and found.file.name not in kept:
            kept.append(found.file.name)
            assert number % 3 == 2
    assert len(kept) == 4


@pytest.mark.parametrize(
    ("held_up_s", "wrote_s", "pause_s"), [(0.0, 0.0, 5), (0.1, 1.25, 5), (0.2, 1.0, 10), (0, 5, 20)]
)
def test_what_keeping_costs_says_how_often_it_is_done(held_up_s, wrote_s, pause_s):
    assert Stored(100.0, held_up_s, wrote_s).next_at_s(idle=False) == 100 + pause_s
    assert Stored(100.0, held_up_s, wrote_s).next_at_s(idle=True) == 105


def test_state_that_cannot_be_kept_ends_the_bundle_after(world):
    parts = [next(part for to, part in split(span, world) if to == 0) for span in pieces_of(world)]
    live = StoredShard(world.project, world.log, 0)
    world.project.join_state.mkdir(parents=True)
    (world.project.join_state / f"live-0-{live.join_shard.epoch}").write_text("in the way")
    world.project.clock.wait(60)
    live.process(parts[:2])
    with pytest.raises(VersionError, match="live-0-"):
        live.wait_stored()
    with pytest.raises(VersionError, match="live-0-"):
        live.process(parts[2:4])


def test_state_replaced_while_it_is_read_is_read_anew(world):
    """A shard that was taken over is still writing: its files go away between a manifest and their being read."""
    parts = [next(part for to, part in split(span, world) if to == 0) for span in pieces_of(world)]
    zombie = StoredShard(world.project, world.log, 0)
    stop = threading.Event()

    def look():
        while not stop.is_set():
            followed_ranges(world.project, world.log)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        for part in parts[:40]:
            world.project.clock.wait(60)
            zombie.process([part])
            zombie.wait_stored()
        stop.set()
    assert looking.exception() is None


def test_process_and_runner_take_over_from_each_other(world, wanted):
    spans = pieces_of(world)
    half = [s for s in spans if s.block.next_offset <= 60]
    join_all(world, half, random.Random(1))
    world.project.clock.wait(60)
    world.run()
    assert world.emitted() == wanted
    shutil.rmtree(world.project.join_state)
    join_all(world, pieces_of(world), random.Random(2))
    assert world.emitted() == wanted


def test_shard_opened_elsewhere_stops_the_one_before(world, wanted):
    spans = pieces_of(world)
    parts = [next(part for to, part in split(span, world) if to == 0) for span in spans]
    zombie = StoredShard(world.project, world.log, 0)
    newer = StoredShard(world.project, world.log, 0)
    with pytest.raises(FencedError):
        zombie.process(parts)
    newer.process(parts)
    join_all(world, spans, random.Random(1))
    assert world.emitted() == wanted


def test_worker_goes_on_after_a_bundle_that_failed(world, wanted):
    shards = StoredShards(world.project, world.log)
    spans = pieces_of(world)
    parts = {s: [p for span in spans for to, p in split(span, world) if to == s] for s in (0, 1)}
    emitted_to = shards.process(0, parts[0][:10], 0)
    StoredShard(world.project, world.log, 0)
    with pytest.raises(FencedError):
        shards.process(0, parts[0], emitted_to)
    for shard in (0, 1):
        shards.process(shard, parts[shard], 0)
    assert world.emitted() == wanted


def test_worker_tells_of_the_shards_it_holds_and_counts_bundles_that_failed(world):
    shards = StoredShards(world.project, world.log)

    def told(metric):
        return {r.labels: r.value for r in shards.readings() if r.metric is metric}

    spans = pieces_of(world)
    parts = {s: [p for span in spans for to, p in split(span, world) if to == s] for s in (0, 1)}
    assert told(metrics.JOIN_EVENTS) == told(metrics.JOIN_LAG) == {}
    for shard in (0, 1):
        shards.process(shard, parts[shard], 0)
    events = sum(len(s.block) for s in spans)
    assert sum(told(metrics.JOIN_EVENTS).values()) == events
    assert sum(told(metrics.JOIN_SAMPLES).values()) == len(world.emitted()[0])
    assert set(told(metrics.JOIN_LAG).values()) == {0}
    failures = metrics.SHARD_FAILURES.labels("join", "0")
    before = failures._value.get()
    with pytest.raises(OffsetError):
        shards.process(0, [], 1_000_000)
    assert failures._value.get() == before + 1
    assert set(told(metrics.JOIN_EVENTS)) == {("1",)}


def test_samples_partition_that_lost_records_is_refused(world):
    shards = StoredShards(world.project, world.log)
    (part, *_) = [p for to, p in split(pieces_of(world)[0], world) if to == 0]
    with pytest.raises(OffsetError, match="records were lost"):
        shards.process(0, [part], 10)


def test_shard_knows_where_its_samples_end(world):
    shards = StoredShards(world.project, world.log)
    for shard in (0, 1):
        parts = [p for span in pieces_of(world) for to, p in split(span, world) if to == shard]
        emitted_to = 0
        for start in range(0, len(parts), 5):
            emitted_to = shards.process(shard, parts[start : start + 5], emitted_to)
            assert emitted_to == world.log.end_offset("samples", shard)
        assert StoredShard(world.project, world.log, shard).join_shard.emitted_to == emitted_to > 0


def test_shard_whose_samples_went_on_elsewhere_is_fenced_and_not_called_lost(world):
    shards = StoredShards(world.project, world.log)
    parts = [p for span in pieces_of(world) for to, p in split(span, world) if to == 0]
    shards.process(0, parts[:5], 0)
    elsewhere = StoredShard(world.project, world.log, 0)
    elsewhere.process(parts)
    with pytest.raises(FencedError):
        shards.process(0, parts, elsewhere.join_shard.emitted_to)


def test_source_reads_what_is_there_and_goes_on_with_what_comes(world):
    element = next(r for r in followed_ranges(world.project, world.log) if r.kind == "clicks")
    source = Source(world, element)
    spans = source.all()
    assert [s.start for s in spans[1:]] == [s.block.next_offset for s in spans[:-1]]
    world.click(W + H, 2 * 7 + element.partition)
    world.project.clock.wait(OTHERS_WAITED_FOR_S)
    (span,) = source.turn()
    assert (span.start, len(span.block)) == (spans[-1].block.next_offset, 1)


def test_idle_partition_emits_a_span_of_nothing_now_and_then(world):
    source = Source(world, followed_ranges(world.project, world.log)[0])
    last = source.all()[-1].block
    world.project.clock.wait(OTHERS_WAITED_FOR_S)
    found = [s for _ in range(200) for s in source.turn()]
    assert 1 <= len(found) < 20
    assert {(len(s.block), s.start, s.block.watermark_ms) for s in found} == {(0, last.next_offset, last.watermark_ms)}


def test_partition_far_ahead_waits_for_the_others(tmp_path):
    world = World(tmp_path, partitions=1, shards=1)
    impression, click = (world.codecs[kind].encode_event for kind in ("impressions", "clicks"))
    world.log.append("impressions", 0, [impression(NOW + n * 10, {"item": n}) for n in range(20_000)])
    world.log.append("clicks", 0, [click(NOW + n * 400, {"item": n}) for n in range(5_000)])
    impressions, clicks = (Source(world, element) for element in followed_ranges(world.project, world.log))
    read = []
    for _ in range(60):
        read.append((impressions.left.value.max_event_time_ms, clicks.left.value.max_event_time_ms))
        impressions.turn()
        clicks.turn()
    both = [(i, c) for i, c in read if i is not None and c is not None and i < NOW + 199_000]
    block_ms = 4_096 * 400
    assert all(c - i <= W + block_ms for i, c in both)
    assert impressions.left.value.max_event_time_ms == NOW + 199_990
    assert clicks.left.value.max_event_time_ms == NOW + 4_999 * 400


def test_partition_that_nobody_would_read_is_said(world):
    element = next(r for r in followed_ranges(world.project, world.log) if r.partition == 0)
    with pytest.raises(LogError, match="topic impressions has 2 partitions, 1 are read"):
        Source(world, replace(element, partitions=1)).turn()


def test_status_tells_where_live_shards_stand(world):
    spans = pieces_of(world)
    for shard in range(2):
        live = StoredShard(world.project, world.log, shard)
        world.project.clock.wait(60)
        live.process([p for span in spans for to, p in split(span, world) if to == shard])
        live.wait_stored()
    status = join_status(world.project, world.log)
    assert {row["lag"] for row in status["inputs"].values()} == {0}
    assert status["watermark_ms"] is not None


def test_two_threads_of_one_worker_take_turns(world, wanted):
    shards = StoredShards(world.project, world.log)
    spans = pieces_of(world)
    parts = {s: [p for span in spans for to, p in split(span, world) if to == s] for s in (0, 1)}
    tasks = [(shard, parts[shard]) for shard in (0, 1) for _ in range(3)]
    threads = [threading.Thread(target=shards.process, args=(s, p, 0)) for s, p in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.emitted() == wanted
