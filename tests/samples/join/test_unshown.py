"""Candidates that were not shown through the join: against a reference, any cut, any crash."""

import random

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
    blocks_of,
    check,
    feed_in_pieces,
    random_logs,
    reference,
)
from tests.support.join_bench import output_of
from tests.support.world.join_state import decode_join, encode_join

COARSE = {"name": "coarse", "target": "label", "teacher": "label", "candidates": True}


def document_of(policy="close", **candidates):
    return {
        "events": {
            "key": ["item"],
            "disorder_s": DISORDER / 1000,
            "impressions": {"columns": {"item": "int", "price": "float"}},
            "clicks": {"columns": {"item": "int"}},
            "candidates": {"columns": {"item": "int", "fine": "float"}, "score": "fine", **candidates},
        },
        "samples": {"window_s": W / 1000, "horizon_s": H / 1000, "key_retention_s": R / 1000, "policy": policy},
        "labels": [{"name": "label"}, COARSE],
        "fields": [{"name": "item", "columns": ["item"]}],
        "dense": [{"name": "price", "column": "price", "range": (0, 10)}],
    }


def config_of(policy="close", **candidates):
    return parse_config(document_of(policy, **candidates))


class WithCandidates(EmittedOutput):
    """What a join emitted, with the scores of candidates."""

    def add(self, output):
        candidates = np.array([kind == "candidate" for kind in output.samples.column("kind").to_pylist()], bool)
        for row in output.samples.filter(candidates).to_pylist():
            assert (row["label"], row["click_at"], row["price"], row["rate"]) == (None, None, None, 1.0)
            at = ("candidates", row["impression_partition"], row["impression_offset"])
            self.samples.append(("candidate", at, round(row["candidate_score"], 6)))
        shown = output.samples.filter(~candidates)
        assert not shown.num_rows or shown.column("candidate_score").null_count == shown.num_rows
        super().add(type(output)(shown, output.dead))
        self.batches[-1] = output.samples


def random_world(seed, policy):
    rng = random.Random(f"{seed}{policy}")
    config = config_of(policy, **rng.choice([{}, {"window_s": 0.03}, {"window_s": 0.3}]))
    partitions = {"impressions": rng.choice([1, 2]), "clicks": 1, "candidates": rng.choice([1, 2])}
    shown = random_logs(rng, {kind: partitions[kind] for kind in ("impressions", "clicks")}, 150, 100)
    logs = {
        (k, p): [(at, item, *(() if k == "clicks" else (1.0,))) for at, item, *_ in e] for (k, p), e in shown.items()
    }
    now, ranked = 1_000, []
    for p in range(partitions["candidates"]):
        logs["candidates", p] = []
    for _ in range(rng.choice([10, 150])):
        now += rng.choice([0, 1, 10, 50])
        jitter = rng.choice([0, 0, 0, DISORDER, DISORDER + 1, 300])
        item, at = rng.choice(ranked) if ranked and rng.random() < 0.2 else (rng.randrange(500), now - jitter)
        ranked.append((item, at))
        score = rng.choice([0.0, 0.25, 1.0, -0.1, 1.1, float("nan"), float("inf"), None, 0.5, 0.75])
        logs["candidates", item % partitions["candidates"]].append((at, item, score))
    for p in range(partitions["candidates"]):
        logs["candidates", p].append((now + rng.choice([0, 500, 5_000]), 10**6 + p, 0.5))
    return rng, config, partitions, logs


def wanted_of(config, logs):
    """The samples and dead letters of the join without candidates, and those of the candidates."""
    window, found, dead, watermarks = round(1000 * config.candidate_window_s), {}, set(), {}
    for (kind, p), events in logs.items():
        watermark = -(2**62)
        for offset, (at, item, score) in enumerate(events if kind == "candidates" else ()):
            watermark = max(watermark, at - DISORDER)
            source = (kind, p, offset)
            if at < watermark:
                dead.add(("candidate_too_late", *source))
            elif score is None or not 0 <= score <= 1:
                dead.add(("score_out_of_range", *source))
            else:
                found.setdefault((at, item), []).append((source, score))
        if kind == "candidates":
            watermarks[p] = watermark
    shown = {at: events for at, events in logs.items() if at[0] != "candidates"}
    samples, letters = reference(config, shown, watermarks.values())
    lows = [max(at for at, *_ in events) - DISORDER for events in shown.values()]
    low = min([*lows, *watermarks.values()])
    for (at, _), (first, *others) in found.items():
        if at + window <= low:
            samples.add(("candidate", *first))
            dead |= {("duplicate_candidate", *source) for source, _ in others}
    return samples, letters | dead


@pytest.mark.parametrize("policy", ["close", "wait", "fake_negative"])
@pytest.mark.parametrize("seed", range(4))
def test_any_interleaving_and_cut_emits_each_candidate_once_and_all_else_as_without_them(policy, seed):
    rng, config, partitions, logs = random_world(seed, policy)
    wanted = wanted_of(config, logs)
    for _ in range(2):
        emitted = WithCandidates()
        feed_in_pieces(rng, Join(config, 0, partitions), logs, emitted)
        check(emitted, wanted)


@pytest.mark.parametrize("policy", ["close", "fake_negative"])
@pytest.mark.parametrize("seed", range(4))
def test_each_candidate_is_emitted_once_after_any_crash(policy, seed):
    rng, config, partitions, logs = random_world(f"crash{seed}", policy)
    wanted = wanted_of(config, logs)
    for _ in range(2):
        world = World(rng, config, partitions, logs)
        world.emitted = WithCandidates()
        world.run()
        check(world.emitted, wanted)


def test_candidates_and_impressions_of_one_time_leave_side_by_side():
    config = config_of()
    logs = {
        ("impressions", 0): [(1_000, 1, 1.0), (1_000, 2, 1.0), (2_000, 3, 1.0), (9_000, 99, 1.0)],
        ("clicks", 0): [(1_050, 2), (9_000, 98)],
        ("candidates", 0): [(1_000, 11, 0.25), (2_000, 12, 0.5), (9_000, 97, 0.0)],
    }
    join = Join(config, 0, {"impressions": 1, "clicks": 1, "candidates": 1})
    for (kind, p), events in logs.items():
        for block in blocks_of(config, kind, p, events, set()):
            join.feed(block)
    rows = output_of(join).samples.select(["item", "kind", "label", "candidate_score"]).to_pylist()
    found = [tuple(row.values()) for row in rows]
    assert found == [
        (1, "negative", 0.0, None),
        (11, "candidate", None, 0.25),
        (2, "positive", 1.0, None),
        (12, "candidate", None, 0.5),
        (3, "negative", 0.0, None),
    ]


def test_waiting_candidates_whose_score_was_declared_as_another_column_are_dead_letters():
    partitions = {"impressions": 1, "clicks": 1, "candidates": 1}
    logs = {
        ("impressions", 0): [(1_000, 1, 1.0), (9_000, 99, 1.0)],
        ("clicks", 0): [(9_000, 98)],
        ("candidates", 0): [(1_000, 11, 0.25), (9_000, 97, 0.5)],
    }
    join = Join(config_of(), 0, partitions)
    blocks = [block for at, events in logs.items() for block in blocks_of(join.config, *at, events, {1})]
    for block in blocks[:1] + blocks[-2:-1]:
        join.feed(block)
    output_of(join)
    renamed = config_of(columns={"item": "int", "score": "float"}, score="score")
    join = decode_join(renamed, 0, partitions, encode_join(join))
    for (kind, p), events in logs.items():
        rows = [(at, item, *rest) for at, item, *rest in events]
        for block in blocks_of(renamed, kind, p, rows, {1}):
            join.feed(block)
    output = output_of(join)
    assert output.samples.column("item").to_pylist() == [1]
    assert output.dead.table.column("reason").to_pylist() == ["score_out_of_range"]
