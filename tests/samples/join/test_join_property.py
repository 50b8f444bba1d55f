"""The join against a reference that processes one event at a time: random logs, interleavings, cuts and crashes."""

import itertools
import random
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrays.block import ARROW_TYPES, EventBlock
from pipeline.arrays.keys import ids128
from pipeline.configuration.config import Config, parse_config
from pipeline.samples.join.join import Join
from tests.support.join_bench import Output, output_of
from tests.support.world.join_state import decode_join, encode_join

W, H, R, DISORDER = 100, 200, 50, 20


def config_of(policy="wait", rate=1.0, spans=(W, H, R, DISORDER)) -> Config:
    window, horizon, remember, disorder = (s / 1000 for s in spans)
    return parse_config(
        {
            "events": {
                "key": ["item"],
                "disorder_s": disorder,
                "impressions": {"columns": {"item": "int"}},
                "clicks": {"columns": {"item": "int", "spent": "float"}},
            },
            "samples": {
                "window_s": window,
                "horizon_s": horizon,
                "key_retention_s": remember,
                "policy": policy,
                "negative_rate": rate,
                "labels": ["label", "spent"],
            },
            "fields": [{"name": "item", "columns": ["item"]}],
        }
    )


def blocks_of(config, kind, partition, events, cuts):
    """Blocks of (at, item, ...) events, record i being offset i, cut before each offset in `cuts`."""
    disorder = round(1000 * config.events.disorder_s)
    columns = config.events.by_kind[kind].columns
    blocks, watermark = [], -(2**62)
    edges = sorted({0, *cuts, len(events)})
    for start, stop in itertools.pairwise(edges):
        part = events[start:stop]
        watermarks = []
        for event in part:
            watermark = max(watermark, event[0] - disorder)
            watermarks.append(watermark)
        arrays = [pa.array([e[1 + i] for e in part], ARROW_TYPES[t]) for i, t in enumerate(columns.values())]
        blocks.append(
            EventBlock(
                kind,
                partition,
                pa.RecordBatch.from_arrays(arrays, names=list(columns)),
                np.array([e[0] for e in part], np.int64),
                np.arange(start, stop, dtype=np.int64),
                np.zeros(len(part), np.int32),
                np.array(watermarks, np.int64),
                stop,
                watermark,
            )
        )
    return blocks


def reference(config, logs, others=()):  # noqa: C901 - the rules in one place
    """What the join must emit for complete logs: {(kind, impression, click)}, {(reason, topic, partition, offset)}.

    `logs` is {(kind, partition): [(at, item, ...)]}; all events of an item are in one partition of each kind. `others`
    are the watermarks of further inputs.
    """
    w, h, r, d = (round(1000 * s) for s in (config.samples.window_s, config.samples.horizon_s,
                                             config.samples.key_retention_s, config.events.disorder_s))  # fmt: skip
    samples, dead, watermarks = set(), set(), {}
    shown = defaultdict(list)  # item → [(s, source)]
    clicked = defaultdict(list)  # (item, s) → [(t, effective, late, source)]
    for (kind, partition), events in sorted(logs.items(), reverse=True):
        watermark = -(2**62)
        for offset, (at, item, *_) in enumerate(events):
            watermark = max(watermark, at - d)
            source = (kind, partition, offset)
            if kind == "impressions":
                if at < watermark:
                    dead.add(("impression_too_late", *source))
                elif any(at < s + w + h + r for s, _ in shown[item]):
                    dead.add(("duplicate_impression", *source))
                else:
                    shown[item].append((at, source))
            else:
                clicked[item].append((at, max(at, watermark), at < watermark, source))
        watermarks[kind, partition] = watermark
    impressions_watermark = min(m for (kind, _), m in watermarks.items() if kind == "impressions")
    low = min([*watermarks.values(), *others])
    fake = config.samples.policy == "fake_negative"
    sampled = {item: is_sampled(config, item) for item in shown}
    of = defaultdict(list)
    for item, clicks in clicked.items():
        for t, e, late, source in clicks:
            mine = [(s, i) for s, i in shown[item] if s <= t and e < s + w + h + r]
            if mine:
                s, i = mine[0]
                if t >= s + w + h:
                    dead.add(("click_too_late", *source))
                else:
                    of[i].append((t, late or t >= s + w, source))
            elif impressions_watermark > t + d:
                soon = any(t < s <= t + d and e < s + max(w + h + r, d) for s, _ in shown[item])
                dead.add(("click_before_impression" if soon else "orphan_click", *source))
    for item, impressions in shown.items():
        for s, i in impressions:
            closed = low >= s + w
            if config.samples.policy == "close" and not closed:
                continue
            clicks = of[i]
            on_time = [] if fake else [c for c in clicks if not c[1]]
            rest = clicks if fake else [c for c in clicks if c[1]]
            if on_time:
                samples.add(("positive", i, on_time[0][2]))
                dead |= {("duplicate_click", *c[2]) for c in on_time[1:]}
            if (fake or (closed and not on_time)) and sampled[item]:
                samples.add(("negative", i, None))
            if (fake or closed) and rest:
                if not on_time:
                    samples.add(("compensation", i, rest[0][2]))
                dead |= {("duplicate_click", *c[2]) for c in (rest if on_time else rest[1:])}
    return samples, dead


def is_sampled(config, item):
    ids = ids128(pa.record_batch({"item": pa.array([item], pa.int64())}), ["item"])
    return config.samples.negative_rate >= 1 or int(ids[0, 1]) < config.samples.negative_rate * 2**64


def random_logs(rng, partitions, events, items):
    """Logs whose times mostly rise, with stragglers, repeated items and clicks around every boundary."""
    logs = {(k, p): [] for k, count in partitions.items() for p in range(count)}
    now, shown = 1_000, []
    for _ in range(events):
        now += rng.choice([0, 1, 3, 10, 30])
        jitter = rng.choice([0, 0, 0, 0, DISORDER // 2, DISORDER, DISORDER + 1, 70, 400])
        if rng.random() < 0.55 or not shown:
            item = rng.randrange(items)
            shown.append((now, item))
            at, kind, event = now, "impressions", (item,)
        else:
            s, item = rng.choice(shown[-30:])
            delays = [-DISORDER - 1, -DISORDER, -1, 0, 1, 50, W - 1, W, W + 1, W + H - 1, W + H, W + H + R, 999]
            at, kind, event = s + rng.choice(delays), "clicks", (item, 0.5)
        logs[kind, item % partitions[kind]].append((max(0, at - jitter), *event))
    for (kind, p), log in logs.items():
        log.append((now + rng.choice([0, 10, 500, 5_000]), 10**6 + p, *((0.0,) if kind == "clicks" else ())))
    return logs


class EmittedOutput:
    """What a join emitted so far, each output once."""

    def __init__(self):
        self.samples, self.dead, self.batches, self.letters = [], [], [], []

    def add(self, output):
        self.batches.append(output.samples)
        self.letters.append(output.dead)
        for row in output.samples.to_pylist():
            click = None
            if row["click_offset"] is not None:
                click = ("clicks", row["click_partition"], row["click_offset"])
            assert row["negative_written"] == (row["kind"] != "positive" and row["negative_written"])
            impression = ("impressions", row["impression_partition"], row["impression_offset"])
            self.samples.append((row["kind"], impression, click))
        for row in output.dead.table.to_pylist():
            self.dead.append((row["reason"], row["topic"], row["partition"], row["offset"]))

    def sets(self):
        assert len(set(self.samples)) == len(self.samples), "a sample was emitted twice"
        assert len({d[1:] for d in self.dead}) == len(self.dead), "an event is a dead letter twice"
        return set(self.samples), set(self.dead)


def cut(rng, config, logs):
    """Random blocks per partition, and a random interleaving of them."""
    queues = {}
    for (kind, p), events in logs.items():
        count = rng.choice([1, 2, 5, len(events)])
        queues[kind, p] = blocks_of(config, kind, p, events, {rng.randrange(len(events)) for _ in range(count)})
    order = []
    while any(queues.values()):
        at = rng.choice([k for k, q in queues.items() if q])
        order.append(queues[at].pop(0))
    return order


def with_unfinished(blocks):
    """Each block with the inputs of which more follow."""
    for i, block in enumerate(blocks):
        yield block, {(later.kind, later.partition) for later in blocks[i + 1 :]}


def check(emitted, wanted):
    for found, expected in zip(emitted.sets(), wanted, strict=True):
        assert sorted(found - expected, key=str) == []
        assert sorted(expected - found, key=str) == []


CASES = [
    ("wait", 1.0, (W, H, R, DISORDER)),
    ("wait", 0.5, (W, H, R, DISORDER)),
    ("fake_negative", 1.0, (W, H, R, DISORDER)),
    ("fake_negative", 0.5, (W, H, R, DISORDER)),
    ("close", 1.0, (W, H, R, DISORDER)),
    ("close", 0.5, (W, 0, 0, 0)),
    ("wait", 1.0, (W, 0, 0, DISORDER)),
    ("wait", 1.0, (10, 5, 0, DISORDER)),  # disorder longer than anything is known
    ("fake_negative", 1.0, (10, 5, 0, DISORDER)),
    ("wait", 1.0, (W, H, R, 0)),
]


def feed_in_pieces(rng, join, logs, emitted):
    """Feed the logs in random cuts, some of them twice, and add to `emitted` what the join emits now and then."""
    for block, unfinished in with_unfinished(cut(rng, join.config, logs)):
        join.unfinished = unfinished
        join.feed(block)
        if rng.random() < 0.3:
            emitted.add(output_of(join))
        if rng.random() < 0.1:
            join.feed(block)  # a replay
    emitted.add(output_of(join))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_any_interleaving_and_cut_emits_what_the_reference_emits(case, seed):
    rng = random.Random(f"{case}{seed}")
    config = config_of(*case)
    partitions = {"impressions": rng.choice([1, 2, 3]), "clicks": rng.choice([1, 2])}
    logs = random_logs(rng, partitions, rng.choice([20, 120, 300]), rng.choice([4, 30, 200]))
    wanted = reference(config, logs)
    for _ in range(3):
        emitted = EmittedOutput()
        feed_in_pieces(rng, Join(config, 0, partitions), logs, emitted)
        check(emitted, wanted)


@pytest.mark.parametrize("policy", ["wait", "close", "fake_negative"])
@pytest.mark.parametrize("seed", range(12))
def test_samples_leave_in_the_order_of_their_decisions_however_far_partitions_are_read_ahead(policy, seed):
    rng = random.Random(f"order{policy}{seed}")
    config = config_of(policy)
    partitions = {"impressions": rng.choice([1, 2, 3]), "clicks": rng.choice([1, 2])}
    logs = {at: sorted(events) for at, events in random_logs(rng, partitions, 300, 200).items()}
    join, decided_at = Join(config, 0, partitions), []
    for block, unfinished in with_unfinished(cut(rng, config, logs)):
        join.unfinished = unfinished
        join.feed(block)
        decided_at += decision_times(output_of(join).samples, policy)
    assert len(decided_at) > 50
    behind = np.maximum.accumulate(decided_at) - np.array(decided_at)
    assert behind.max() <= 2 * DISORDER


def decision_times(batch, policy):
    after = 0 if policy == "fake_negative" else W
    for row in batch.to_pylist():
        closes_at = row["impression_at"] + after
        if row["kind"] == "negative":
            yield closes_at
        else:
            yield row["click_at"] if row["kind"] == "positive" and policy == "wait" else max(row["click_at"], closes_at)


class World:
    """A join that is fed from logs and crashes at random: only what it emitted and what it saved survive."""

    def __init__(self, rng, config, partitions, logs):
        self.rng, self.config, self.partitions = rng, config, partitions
        self.complete = {at: blocks_of(config, *at, events, set())[0] for at, events in logs.items()}
        self.emitted, self.last = EmittedOutput(), None
        self.join = Join(config, 0, partitions)
        self.saved, self.emitted_since = encode_join(self.join), ([], [])

    def run(self):
        while ahead := [at for at in self.complete if self.join.progress.of[at].next_offset < len(self.complete[at])]:
            self.feed(self.rng.choice(ahead))
            if self.rng.random() < 0.4:
                self.rng.choice([self.bundle, self.bundle, self.crash_before_emitting, self.crash_before_saving,
                                 self.crash_between, self.lose_state])()  # fmt: skip
        self.bundle()

    def feed(self, at):
        block, start = self.complete[at], self.join.progress.of[at].next_offset
        stop = min(len(block), start + self.rng.choice([1, 7, 40, 1000]))
        part = block.take(np.arange(start, stop))
        self.join.unfinished = {
            other
            for other, events in self.complete.items()
            if (stop if other == at else self.join.progress.of[other].next_offset) < len(events)
        }
        self.join.feed(replace(part, next_offset=stop, watermark_ms=int(block.watermarks_ms[stop - 1])))

    def emit(self, output, samples=True):
        dead = output.dead
        empty = output.samples.slice(0, 0)
        self.emitted.add(Output(output.samples if samples else empty, dead))
        self.emitted_since[1].append(dead)
        if samples and output.samples.num_rows:
            self.emitted_since[0].append(output.samples)
            self.last = (self.join.needed_offsets(), self.join.needed_watermarks())

    def bundle(self):
        self.emit(output_of(self.join))
        self.saved, self.emitted_since = encode_join(self.join), ([], [])

    def crash_before_emitting(self):
        output_of(self.join)
        self.restart()

    def crash_before_saving(self):
        self.emit(output_of(self.join))
        self.restart()

    def crash_between(self):
        self.emit(output_of(self.join), samples=False)
        self.restart()

    def restart(self):
        self.join = decode_join(self.config, 0, self.partitions, self.saved)
        self.join.restore_emitted(*self.emitted_since)

    def lose_state(self):
        self.emit(output_of(self.join))
        self.join = Join(self.config, 0, self.partitions)
        if self.last is not None:
            offsets, watermarks = self.last
            for kind, partition in self.complete:
                name = f"{kind}/{partition}"
                self.join.begin(kind, partition, offsets[name], watermarks.get(name))
        self.join.restore_emitted(self.emitted.batches, self.emitted.letters)
        self.saved, self.emitted_since = encode_join(self.join), ([], [])


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", range(10))
def test_each_output_is_emitted_once_after_any_crash(case, seed):
    rng = random.Random(f"crash{case}{seed}")
    config = config_of(*case)
    partitions = {"impressions": rng.choice([1, 2, 3]), "clicks": rng.choice([1, 2])}
    logs = random_logs(rng, partitions, rng.choice([20, 120, 300]), rng.choice([4, 30, 200]))
    wanted = reference(config, logs)
    for _ in range(3):
        world = World(rng, config, partitions, logs)
        world.run()
        check(world.emitted, wanted)
