"""What the join emits for an impression and its clicks, on both sides of every boundary."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrays.block import EventBlock
from pipeline.logs.events.sample_block import sample_schema
from pipeline.samples.join.join import Join
from tests.support.join_bench import Bench, D, H, R, S, W, output_of


@pytest.mark.parametrize("delay", [0, 1, W - 1])
def test_click_inside_the_window_is_a_positive(delay):
    bench = Bench()
    bench.impression(S)
    bench.click(S + delay)
    bench.finish()
    assert (bench.kinds, bench.reasons) == (["positive"], [])
    assert bench.samples[0]["click_at"] == S + delay


def test_positive_is_emitted_before_its_window_closes_and_no_negative_follows():
    bench = Bench()
    bench.impression(S)
    bench.click(S + 5)
    assert bench.finish().kinds == ["positive"]
    assert bench.watermark(S + W + H + R).kinds == ["positive"]


def test_window_closes_when_the_watermark_reaches_its_end_and_not_before():
    bench = Bench()
    bench.impression(S)
    assert bench.watermark(S + W - 1).kinds == []
    assert bench.watermark(S + W).kinds == ["negative"]
    assert bench.samples[0]["click_at"] is None


def test_window_stays_open_while_one_partition_was_never_seen():
    bench = Bench({"impressions": 2, "clicks": 1})
    bench.impression(S)
    bench.heartbeat("impressions", S + 10 * W)
    bench.heartbeat("clicks", S + 10 * W)
    assert bench.finish().kinds == []
    bench.heartbeat("impressions", S + W, partition=1)
    assert bench.finish().kinds == ["negative"]


@pytest.mark.parametrize("delay", [W, W + H - 1])
def test_click_in_the_horizon_is_compensated_once_the_window_has_closed(delay):
    bench = Bench()
    bench.impression(S)
    bench.click(S + delay)
    bench.heartbeat("impressions", S + W - 1)
    assert bench.finish().kinds == []
    bench.watermark(S + W)
    assert (bench.kinds, bench.reasons) == (["negative", "compensation"], [])
    assert bench.samples[1]["negative_written"] is True


def test_click_in_the_horizon_after_the_negative_is_compensated_at_once():
    bench = Bench()
    bench.impression(S)
    assert bench.watermark(S + W + 10).kinds == ["negative"]
    bench.click(S + W + 10)
    assert bench.finish().kinds == ["negative", "compensation"]


@pytest.mark.parametrize(("delay", "reasons"), [(W + H - 1, []), (W + H, ["click_too_late"])])
def test_click_after_the_horizon_is_too_late(delay, reasons):
    bench = Bench()
    bench.impression(S)
    bench.click(S + delay)
    assert bench.finish().reasons == reasons


@pytest.mark.parametrize(("delay", "reason"), [(W + H + R - 1, "click_too_late"), (W + H + R, "orphan_click")])
def test_impression_is_known_until_window_horizon_and_key_retention_have_passed(delay, reason):
    bench = Bench()
    bench.impression(S)
    bench.click(S + delay)
    bench.heartbeat("impressions", S + delay + D + 1)
    assert bench.finish().reasons == [reason]


@pytest.mark.parametrize(("watermark_ms", "reason"), [(S + W + H + R - 1, None), (S + W + H + R, "orphan_click")])
def test_late_click_counts_from_its_partitions_watermark(watermark_ms, reason):
    bench = Bench()
    bench.impression(S)
    bench.heartbeat("clicks", watermark_ms)
    bench.click(S + 1)
    bench.heartbeat("impressions", S + D + 2)
    assert bench.finish().reasons == ([reason] if reason else [])


def test_late_click_in_the_window_is_compensated_and_a_click_at_the_watermark_is_not_late():
    for behind, kinds in ((0, ["positive"]), (1, ["negative", "compensation"])):
        bench = Bench()
        bench.impression(S)
        bench.heartbeat("clicks", S + 50)
        bench.click(S + 50 - behind)
        assert bench.watermark(S + W).kinds == kinds


def test_late_click_of_a_positive_is_a_duplicate():
    bench = Bench()
    bench.impression(S)
    bench.heartbeat("clicks", S + 50)
    bench.click(S + 10)
    bench.click(S + 60)
    bench.watermark(S + W)
    assert (bench.kinds, bench.reasons) == (["positive"], ["duplicate_click"])
    assert bench.dead[0]["offset"] == 1


def test_second_click_is_a_duplicate_and_the_first_labels():
    bench = Bench()
    bench.impression(S)
    bench.click(S + 20)
    bench.click(S + 10)
    bench.finish()
    assert (bench.kinds, bench.reasons) == (["positive"], ["duplicate_click"])
    assert bench.samples[0]["click_at"] == S + 20


def test_second_click_in_the_horizon_is_a_duplicate():
    bench = Bench()
    bench.impression(S)
    bench.click(S + W)
    bench.click(S + W + 1)
    bench.watermark(S + W)
    bench.click(S + W + 2)
    bench.finish()
    assert (bench.kinds, bench.reasons) == (["negative", "compensation"], ["duplicate_click"] * 2)


def test_click_that_arrives_before_its_impression_is_pending():
    bench = Bench()
    bench.click(S + 10)
    assert bench.finish().kinds == []
    bench.impression(S)
    bench.finish()
    assert (bench.kinds, bench.reasons) == (["positive"], [])


@pytest.mark.parametrize(("past", "reasons"), [(0, []), (1, ["orphan_click"])])
def test_orphan_is_decided_when_the_impressions_watermark_passes_click_and_disorder(past, reasons):
    bench = Bench()
    bench.click(S)
    bench.heartbeat("impressions", S + D + past)
    assert bench.finish().reasons == reasons


@pytest.mark.parametrize(
    ("ahead", "reason"), [(1, "click_before_impression"), (D, "click_before_impression"), (D + 1, "orphan_click")]
)
def test_click_within_disorder_before_its_impression_has_its_own_reason(ahead, reason):
    bench = Bench()
    bench.impression(S)
    bench.click(S - ahead)
    assert bench.finish().reasons == []
    bench.heartbeat("impressions", S + D + 1)
    assert bench.finish().reasons == [reason]


@pytest.mark.parametrize(("behind", "reasons"), [(D, []), (D + 1, ["impression_too_late"])])
def test_impression_below_its_own_watermark_is_too_late(behind, reasons):
    bench = Bench({"impressions": 2, "clicks": 1})
    bench.impression(S, item=2)
    bench.impression(S - behind)
    bench.impression(S - 10 * D, item=3, partition=1)  # another partition has its own watermark
    assert bench.finish().reasons == reasons


def test_late_impression_of_a_known_key_is_late_first():
    bench = Bench()
    bench.impression(S)
    bench.impression(S + 10 * D, item=2)
    bench.impression(S)
    assert bench.finish().reasons == ["impression_too_late"]


@pytest.mark.parametrize(
    ("later", "reasons"), [(0, ["duplicate_impression"]), (W + H + R - 1, ["duplicate_impression"]), (W + H + R, [])]
)
def test_key_may_be_used_again_when_its_impression_is_no_longer_known(later, reasons):
    bench = Bench()
    bench.impression(S)
    bench.impression(S + later)
    assert bench.finish().reasons == reasons
    assert len(bench.watermark(S + later + W).samples) == 2 - len(reasons)


def test_click_is_attributed_to_the_latest_impression_of_its_key_before_it():
    bench = Bench()
    again = S + W + H + R
    bench.impression(S)
    bench.impression(again)
    bench.finish()
    bench.restart()
    bench.click(S + 10)
    bench.click(again + 10)
    bench.finish()
    assert [(s["impression_at"], s["click_at"]) for s in bench.samples] == [(S, S + 10), (again, again + 10)]


def test_block_fed_twice_changes_nothing():
    bench = Bench()
    blocks = [bench.impression(S), bench.click(S + 1)]
    for block in blocks:
        bench.join.feed(block)
    bench.watermark(S + W)
    assert (bench.kinds, bench.reasons) == (["positive"], [])


def test_samples_of_a_list_leave_together_in_the_order_of_its_impressions():
    bench = Bench(policy="close")
    for item in range(4):
        bench.impression(S + item, item)
    bench.click(S + W - 1, 2)
    assert bench.finish().kinds == []
    bench.restart()
    bench.watermark(S + W + 3)
    assert [(sample["item"], sample["kind"]) for sample in bench.samples] == [
        (0, "negative"), (1, "negative"), (2, "positive"), (3, "negative"),
    ]  # fmt: skip


@pytest.mark.parametrize(("delay", "kinds"), [(W - 1, ["positive"]), (W, ["negative", "compensation"])])
def test_click_is_a_positive_of_a_closed_window_up_to_its_end(delay, kinds):
    bench = Bench(policy="close")
    bench.impression(S)
    bench.click(S + delay)
    bench.click(S + delay)
    assert bench.watermark(S + W).kinds == kinds
    assert bench.reasons == ["duplicate_click"]


def test_fake_negative_is_written_at_once_and_one_click_compensates_it():
    bench = Bench(policy="fake_negative")
    bench.impression(S)
    assert bench.finish().kinds == ["negative"]
    bench.click(S + 1)
    assert bench.finish().kinds == ["negative", "compensation"]
    bench.click(S + 2)
    bench.watermark(S + W + H + R)
    assert (bench.kinds, bench.reasons) == (["negative", "compensation"], ["duplicate_click"])


@pytest.mark.parametrize(("delay", "kinds"), [(W + H - 1, ["negative", "compensation"]), (W + H, ["negative"])])
def test_fake_negative_is_compensated_until_the_horizon(delay, kinds):
    bench = Bench(policy="fake_negative")
    bench.impression(S)
    bench.click(S + delay)
    assert bench.finish().kinds == kinds
    assert bench.reasons == ([] if "compensation" in kinds else ["click_too_late"])


@pytest.mark.parametrize("policy", ["wait", "fake_negative"])
def test_negative_rate_samples_its_share_and_compensations_record_which(policy):
    bench = Bench(policy=policy, negative_rate=0.25)
    for item in range(400):
        bench.impression(S, item=item)
    for item in range(400):
        bench.click(S + W, item=item)
    bench.watermark(S + W)
    written = {s["item"] for s in bench.samples if s["kind"] == "negative"}
    compensated = {s["item"]: s["negative_written"] for s in bench.samples if s["kind"] == "compensation"}
    assert 70 < len(written) < 130
    assert {item for item, negative_written in compensated.items() if negative_written} == written
    assert len(compensated) == 400
    assert {s["rate"] for s in bench.samples} == {0.25}


def test_sample_has_labels_weight_and_raw_columns():
    bench = Bench(labels=["label", "spent", "bought"], weight="price")
    bench.impression(S)
    bench.impression(S + 1, item=2, price=None)
    bench.impression(S + 2, item=3, tags=None, price=2.0)
    bench.click(S + 3, spent=0.75, bought=True)
    bench.click(S + 4, item=2)
    bench.watermark(S + W + 2)
    one, two, three = bench.samples
    assert [one[k] for k in ("label", "spent", "bought", "weight", "tags")] == [1.0, 0.75, 1.0, 0.5, ["a", "b"]]
    assert [two[k] for k in ("label", "spent", "bought", "weight")] == [1.0, 0.0, 0.0, 1.0]
    assert [three[k] for k in ("label", "spent", "bought", "weight", "tags")] == [0.0, 0.0, 0.0, 2.0, None]


def test_samples_have_the_declared_schema_even_when_there_are_none():
    bench = Bench()
    assert output_of(bench.join).samples.schema == sample_schema(bench.config)
    bench.impression(S)
    bench.click(S)
    assert output_of(bench.join).samples.schema == sample_schema(bench.config)


def test_samples_are_ordered_by_decision_then_source():
    bench = Bench()
    bench.impression(S, item=1)
    bench.impression(S - 50, item=2)
    bench.impression(S - 50, item=3)
    bench.click(S + W - 50, item=1)
    bench.click(S + W - 60, item=3)
    bench.watermark(S + W)
    assert [(s["item"], s["kind"]) for s in bench.samples] == [(3, "positive"), (1, "positive"), (2, "negative")]


def test_compensation_follows_its_negative_if_both_are_decided_at_the_same_time():
    bench = Bench()
    bench.impression(S)
    bench.click(S + W)
    bench.watermark(S + W)
    assert bench.kinds == ["negative", "compensation"]


def test_dead_letter_contains_source_and_row():
    bench = Bench()
    bench.click(S, item=9, spent=2.5)
    bench.heartbeat("impressions", S + D + 1)
    letter = bench.finish().dead[0]
    assert {k: letter[k] for k in ("reason", "topic", "partition", "offset", "row", "event_at")} == {
        "reason": "orphan_click", "topic": "clicks", "partition": 0, "offset": 0, "row": 0, "event_at": S,
    }  # fmt: skip
    assert json.loads(letter["original"]) == {"at": S, "request": "r", "item": 9, "spent": 2.5, "bought": None}


def test_needed_offsets_are_those_of_held_events():
    bench = Bench()
    bench.impression(S)
    bench.impression(S + 2 * W, item=2)
    bench.click(S + 2 * W)
    bench.finish()
    assert bench.join.needed_offsets() == {"impressions/0": 0, "clicks/0": 1}
    bench.watermark(S + W + H + R)
    assert bench.join.needed_offsets() == {"impressions/0": 1, "clicks/0": 2}
    bench.watermark(S + 3 * W + H + R)
    assert bench.join.needed_offsets() == {"impressions/0": 4, "clicks/0": 3}
    assert len(bench.join.held) == 0


def test_held_impressions_are_bounded_as_time_advances():
    bench = Bench()
    most = 0
    for step in range(400):
        bench.impression(S + 50 * step, item=step)
        bench.watermark(S + 50 * step)
        most = max(most, len(bench.join.held))
    assert most <= (W + H + R) // 50 * 1.2 + 16


def test_late_click_is_late_after_the_state_was_lost():
    bench = Bench()
    bench.impression(S)
    bench.heartbeat("clicks", S + 50)
    bench.click(S + 10)
    bench.finish()
    offsets, watermarks = bench.join.needed_offsets(), bench.join.needed_watermarks()
    assert (offsets["clicks/0"], watermarks["clicks/0"]) == (1, S + 50)
    bench.join = Join(bench.config, 0, bench.partitions)
    for kind in ("impressions", "clicks"):
        name = f"{kind}/0"
        bench.join.begin(kind, 0, offsets[name], watermarks.get(name))
    bench.ends = {("clicks", 0): 1}
    bench.impression(S)
    bench.click(S + 10)
    assert bench.watermark(S + W).kinds == ["negative", "compensation"]


def test_emitted_negative_is_final_even_for_a_click_on_time():
    before, bench = Bench(), Bench()
    before.impression(S)
    for kind in ("impressions", "clicks"):
        before.heartbeat(kind, S + W)
    bench.join.restore_emitted([output_of(before.join).samples])
    bench.impression(S)
    bench.click(S + 1)
    assert bench.watermark(S + W).kinds == ["compensation"]


def test_large_blocks_are_decided_inside_a_bundle():
    bench = Bench()
    n = 200_000
    columns = pa.record_batch(
        {
            "request": pa.array(["r"] * n),
            "item": pa.array(np.arange(n)),
            "tags": pa.nulls(n, pa.list_(pa.string())),
            "price": pa.nulls(n, pa.float64()),
        }
    )
    at = S + np.arange(n, dtype=np.int64)
    bench.heartbeat("clicks", S + n)
    complete = EventBlock(
        "impressions", 0, columns, at, np.zeros(n, np.int64), np.arange(n, dtype=np.int32), at - D, 1, S + n
    )
    for number, start in enumerate(range(0, n, 8192)):
        part = complete.take(np.arange(start, min(n, start + 8192)))
        part = replace(
            part, offsets=part.offsets + number, next_offset=number + 1, watermark_ms=int(part.watermarks_ms[-1])
        )
        bench.join.feed(part)
        assert len(bench.join.held) <= 65_536 + 8192 + (W + H + R) * 2
    assert output_of(bench.join).samples.num_rows == n - W - D
