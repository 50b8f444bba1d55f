"""The join of several feedbacks against a reference that decides one pair of impression and feedback at a time."""

import random
from collections import defaultdict

import numpy as np
import pytest

from pipeline.configuration.config import parse_config
from pipeline.samples.join.join import Join
from tests.samples.join.test_join_property import (
    DISORDER,
    EmittedOutput,
    H,
    R,
    W,
    World,
    check,
    cut,
    is_sampled,
    with_unfinished,
)
from tests.support.join_bench import output_of

FEEDBACKS = {
    "equal windows": {"click": (W, H, "wait"), "like": (W, 0, "wait"), "purchase": (3 * W, 5 * W, "wait")},
    "all at once": {"click": (W, H, "fake_negative"), "purchase": (3 * W, H, "fake_negative")},
    "mixed": {"clicks": (W, H, "wait"), "purchase": (4 * W, H, "wait"), "like": (W, H, "fake_negative"),
              "share": (10, 5, "fake_negative")},
    "one": {"purchase": (W, H, "wait")},
    "closed": {"click": (W, H, "close"), "like": (W, 0, "wait"), "purchase": (3 * W, H, "close")},
}  # fmt: skip


def config_of(kinds, rate=1.0):
    columns, settings = {"item": "int"}, {}
    events = {"key": ["item"], "disorder_s": DISORDER / 1000, "impressions": {"columns": columns}}
    for kind, (window, horizon, policy) in kinds.items():
        join = {"window_s": window / 1000, "horizon_s": horizon / 1000, "policy": policy}
        events[kind] = {"columns": columns} | ({} if kind == "clicks" else join)
        settings |= join | {"labels": ["clicks"]} if kind == "clicks" else {}
    samples = {"key_retention_s": R / 1000, "negative_rate": rate, **settings}
    return parse_config(
        {"events": events, "samples": samples, "fields": [{"name": "item", "columns": ["item"]}]}
    )  # fmt: skip


def random_logs(rng, config, partitions, events, items):
    """As that of two kinds: times mostly rise, and feedback comes around every boundary of its own kind."""
    logs = {(k, p): [] for k, count in partitions.items() for p in range(count)}
    now, shown = 1_000, []
    for _ in range(events):
        now += rng.choice([0, 1, 3, 10, 30])
        jitter = rng.choice([0, 0, 0, 0, DISORDER // 2, DISORDER, DISORDER + 1, 70, 400])
        if rng.random() < 0.45 or not shown:
            item = rng.randrange(items)
            shown.append((now, item))
            at, kind = now, "impressions"
        else:
            feedback = rng.choice(config.feedbacks)
            w, h = (round(1000 * s) for s in (feedback.window_s, feedback.horizon_s))
            s, item = rng.choice(shown[-30:])
            delays = [-DISORDER - 1, -1, 0, 1, 50, w - 1, w, w + 1, w + h - 1, w + h, w + h + R, 999]
            at, kind = s + rng.choice(delays), feedback.kind
        logs[kind, item % partitions[kind]].append((max(0, at - jitter), item))
    for p, log in enumerate(logs.values()):
        log.append((now + rng.choice([0, 10, 500, 5_000]), 10**6 + p))
    return logs


def reference(config, logs):
    """What the join must emit for complete logs: {(kind, impression, click, labels, observed until)}, dead letters."""
    known = max(round(1000 * (f.window_s + f.horizon_s)) for f in config.feedbacks) + R
    shown, dead = defaultdict(list), set()
    read = {(kind, p): list(with_watermarks(events)) for (kind, p), events in logs.items()}
    for p in range(sum(kind == "impressions" for kind, _ in logs)):
        for offset, (at, item, watermark) in enumerate(read["impressions", p]):
            source = ("impressions", p, offset)
            if at < watermark:
                dead.add(("impression_too_late", *source))
            elif any(at < s + known for s, _ in shown[item]):
                dead.add(("duplicate_impression", *source))
            else:
                shown[item].append((at, source))
    low = {kind: min(r[-1][2] for (k, _), r in read.items() if k == kind) for kind, _ in read}
    samples, negatives = set(), defaultdict(set)
    for feedback in config.feedbacks:
        clicks = {at: events for at, events in read.items() if at[0] == feedback.kind}
        of = attributed(feedback, clicks, shown, known, low["impressions"], dead)
        for item, impressions in shown.items():
            for impression in impressions:
                decide(feedback, impression, of[impression[1]], min(low.values()), samples, negatives[item], dead)
    for item, found in negatives.items():
        together = defaultdict(set)
        for impression, until, kind in found if is_sampled(config, item) else ():
            together[impression, until].add(kind)
        samples |= {("negative", i, None, frozenset(kinds), until) for (i, until), kinds in together.items()}
    return samples, dead


def with_watermarks(events):
    watermark = -(2**62)
    for at, item in events:
        watermark = max(watermark, at - DISORDER)
        yield at, item, watermark


def attributed(feedback, clicks, shown, known, impressions_low, dead):
    """By impression its clicks of one feedback that are not too late: [(t, whether it is late, source)]."""
    ends = round(1000 * (feedback.window_s + feedback.horizon_s))
    of = defaultdict(list)
    for (kind, p), events in clicks.items():
        for offset, (t, item, watermark) in enumerate(events):
            source, e = (kind, p, offset), max(t, watermark)
            mine = [(s, i) for s, i in shown[item] if s <= t and e < s + known]
            if mine and t >= mine[0][0] + ends:
                dead.add(("click_too_late", *source))
            elif mine:
                of[mine[0][1]].append((t, t < watermark, source))
            elif impressions_low > t + DISORDER:
                soon = any(t < s <= t + DISORDER and e < s + max(known, DISORDER) for s, _ in shown[item])
                dead.add(("click_before_impression" if soon else "orphan_click", *source))
    return of


def decide(feedback, impression, clicks, low, samples, negatives, dead):
    (s, i), w, fake = impression, round(1000 * feedback.window_s), feedback.policy == "fake_negative"
    closes, only = s + (0 if fake else w), frozenset({feedback.kind})
    closed = fake or low >= closes
    on_time = [c for c in clicks if not (fake or c[1] or c[0] >= s + w)]
    rest = [c for c in clicks if c not in on_time]
    if feedback.policy == "close" and not closed:
        return
    if on_time:
        until = closes if feedback.policy == "close" else on_time[0][0]
        samples.add(("positive", i, on_time[0][2], only, until))
    if closed and not on_time:
        negatives.add((i, closes, feedback.kind))
    if closed and rest and not on_time:
        samples.add(("compensation", i, rest[0][2], only, max(rest[0][0], closes)))
        rest = rest[1:]
    elif not closed:
        rest = []
    dead |= {("duplicate_click", *c[2]) for c in (*on_time[1:], *rest)}


class LabelledOutput(EmittedOutput):
    """What a join of several feedbacks emitted so far."""

    def __init__(self, config):
        super().__init__()
        self.kinds, self.rate = config.label_names, config.samples.negative_rate

    def add(self, output):
        self.batches.append(output.samples)
        self.letters.append(output.dead)
        for row in output.samples.to_pylist():
            labels = {kind for kind in self.kinds if row[kind] is not None}
            assert {row[kind] for kind in labels} == {0.0 if row["kind"] == "negative" else 1.0}
            click = None
            if row["feedback"] is not None:
                click = (row["feedback"], row["click_partition"], row["click_offset"])
            assert (click is None) == (row["kind"] == "negative") == (row["click_at"] is None)
            assert row["kind"] != "negative" or row["negative_written"]
            assert row["kind"] != "compensation" or row["negative_written"] or self.rate < 1
            impression = ("impressions", row["impression_partition"], row["impression_offset"])
            self.samples.append((row["kind"], impression, click, frozenset(labels), row["observed_until"]))
        for row in output.dead.table.to_pylist():
            self.dead.append((row["reason"], row["topic"], row["partition"], row["offset"]))


def world_of(seed, kinds, rate):
    rng = random.Random(f"{kinds}{rate}{seed}")
    config = config_of(FEEDBACKS[kinds], rate)
    partitions = {kind: rng.choice([1, 2]) for kind in config.input_topics}
    logs = random_logs(rng, config, partitions, rng.choice([20, 120, 300]), rng.choice([4, 30, 200]))
    return rng, config, partitions, logs


CASES = [(kinds, rate) for kinds in FEEDBACKS for rate in (1.0, 0.5)]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_any_interleaving_and_cut_decides_each_feedback_as_the_reference_does(case, seed):
    rng, config, partitions, logs = world_of(seed, *case)
    wanted = reference(config, logs)
    for _ in range(2):
        join, emitted = Join(config, 0, partitions), LabelledOutput(config)
        for block, unfinished in with_unfinished(cut(rng, config, logs)):
            join.unfinished = unfinished
            join.feed(block)
            if rng.random() < 0.3:
                emitted.add(output_of(join))
        emitted.add(output_of(join))
        check(emitted, wanted)


@pytest.mark.parametrize("kinds", FEEDBACKS)
@pytest.mark.parametrize("seed", range(2))
def test_samples_of_all_feedbacks_leave_in_the_order_of_their_decisions(kinds, seed):
    rng, config, partitions, logs = world_of(f"order{seed}", kinds, 1.0)
    logs = {at: sorted(events) for at, events in random_logs(rng, config, partitions, 300, 200).items()}
    join, decided_at = Join(config, 0, partitions), []
    for block, unfinished in with_unfinished(cut(rng, config, logs)):
        join.unfinished = unfinished
        join.feed(block)
        decided_at += output_of(join).samples.column("observed_until").to_pylist()
    assert len(decided_at) > 50
    behind = np.maximum.accumulate(decided_at) - np.array(decided_at)
    assert behind.max() <= 2 * DISORDER


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_each_output_of_each_feedback_is_emitted_once_after_any_crash(case, seed):
    rng, config, partitions, logs = world_of(f"crash{seed}", *case)
    wanted = reference(config, logs)
    for _ in range(2):
        world = World(rng, config, partitions, logs)
        world.emitted = LabelledOutput(config)
        world.run()
        check(world.emitted, wanted)
