"""A weight, label or number out of its range sets its event aside with a reason; all other events are joined."""

import math

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.config import parse_config
from pipeline.logs.events.dead_letters import REASONS
from pipeline.samples.join.dead_letters import DETAILS
from pipeline.samples.join.ranges import Ranges
from tests.support.join_bench import Bench, D, H, R, S, W, config_of, output_of

OUTSIDE = [-1.0, math.nan, math.inf, -math.inf, 1e300, math.nextafter(10, 11)]
INSIDE = [0.0, 1e-42, 1.0, 10.0, None]


def weighted() -> Bench:
    return Bench(weight="price", max_weight=10.0)


@pytest.mark.parametrize("weight", OUTSIDE)
def test_impression_with_a_weight_out_of_range_is_set_aside_and_its_click_too(weight):
    bench = weighted()
    bench.impression(S, item=1, price=1.0)
    bench.impression(S, item=2, price=weight)
    bench.click(S + 1, item=1)
    bench.click(S + 1, item=2)
    bench.watermark(S + W + H + R)
    assert bench.kinds == ["positive"]
    assert sorted(bench.reasons) == ["orphan_click", "weight_out_of_range"]


@pytest.mark.parametrize("weight", INSIDE)
def test_impression_with_a_weight_inside_its_range_is_joined(weight):
    bench = weighted()
    bench.impression(S, price=weight)
    bench.click(S + 1)
    bench.finish()
    assert (bench.kinds, bench.reasons) == (["positive"], [])
    assert bench.samples[0]["weight"] == pytest.approx(1.0 if weight is None else weight)


@pytest.mark.parametrize("spent", [-0.1, 0.6, 35.0, math.nan, math.inf, 1e300])
def test_click_with_a_label_out_of_range_is_set_aside_and_the_next_one_counts(spent):
    bench = Bench(labels=["label", "spent"], label_ranges={"spent": [0, 0.5]})
    bench.impression(S)
    bench.click(S + 1, spent=spent)
    bench.click(S + 2, spent=0.25)
    bench.finish()
    assert (bench.kinds, bench.reasons) == (["positive"], ["label_out_of_range"])
    assert (bench.samples[0]["click_at"], bench.samples[0]["spent"]) == (S + 2, 0.25)


@pytest.mark.parametrize(("spent", "label"), [(0.0, 0.0), (1.0, 1.0), (None, 0.0)])
def test_label_inside_the_default_range_of_the_loss_is_joined(spent, label):
    bench = Bench(labels=["label", "spent", "bought"])
    bench.impression(S)
    bench.click(S + 1, spent=spent, bought=True)
    bench.finish()
    assert (bench.reasons, bench.samples[0]["spent"], bench.samples[0]["bought"]) == ([], label, 1.0)


def test_impression_that_is_late_and_out_of_range_has_one_reason():
    bench = weighted()
    bench.heartbeat("impressions", S + 10 * D)
    bench.impression(S, price=-1.0)
    bench.finish()
    assert bench.reasons == ["impression_too_late"]


def dense_config(transform: str, limits: list[float] | None):
    document = config_of().model_dump(mode="json", exclude_unset=True)
    number = {"name": "price", "column": "price", "transform": transform}
    return parse_config({**document, "dense": [number if limits is None else {**number, "range": limits}]})


@pytest.mark.parametrize(
    ("transform", "limits", "wrong"),
    [
        ("value", None, [math.nan, math.inf, 1e300]),
        ("log1p", None, [math.nan, math.inf]),
        ("value", [0, 1], [math.nan, math.inf, 1e300, -5.0, 2.0]),
    ],
)
def test_dense_number_out_of_its_range_is_found(transform, limits, wrong):
    prices = [math.nan, math.inf, 1e300, -5.0, 2.0, 0.5, None]
    columns = pa.RecordBatch.from_pylist([{"price": price} for price in prices])
    [(reason, found)] = Ranges(dense_config(transform, limits)).impressions(columns, np.zeros(len(prices), np.int64))
    assert reason == "number_out_of_range"
    assert found.tolist() == [any(price is each or price == each for each in wrong) for price in prices]


def test_what_was_set_aside_is_not_set_aside_again_by_a_restarted_join():
    bench = weighted()
    bench.impression(S, price=-1.0)
    dead = output_of(bench.join).dead
    again = weighted()
    again.join.restore_emitted([], [dead])
    again.impression(S, price=-1.0)
    again.finish()
    assert again.reasons == []


def test_every_reason_of_the_join_can_be_replayed_by_its_name():
    assert set(DETAILS) <= set(REASONS)


def test_list_of_weights_that_does_not_fit_its_elements_is_found():
    document = config_of().model_dump(mode="json", exclude_unset=True)
    document["events"]["impressions"]["columns"]["strengths"] = "floats"
    field = {"name": "tags", "columns": ["tags"], "pooling": "mean", "weights": "strengths"}
    ranges = Ranges(parse_config({**document, "fields": [field]}))
    lists = [
        (["a", "b"], [1.0, 0.5]),
        (["a", "b"], [1.0]),
        (["a"], [math.nan]),
        (None, []),
        (None, [1.0]),
        (["a"], None),
    ]
    columns = pa.RecordBatch.from_pylist([{"tags": tags, "strengths": strengths} for tags, strengths in lists])
    [(reason, found)] = ranges.impressions(columns, np.zeros(len(lists), np.int64))
    assert reason == "weights_invalid"
    assert found.tolist() == [False, True, True, False, True, False]
