"""The reservoir of recent items: against a dict, uniform draws, inputs of lists and weights, and its bytes."""

import copy

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import DamagedError
from pipeline.features.plan import FeaturePlan
from pipeline.trainer.items.source import ItemSource
from tests.support.shop.shop import WRITTEN, make_samples

SIZE = 12


def config_of(**towers):
    document = copy.deepcopy(WRITTEN)
    document["events"]["impressions"]["columns"] |= {"price": "float", "shares": "floats"}
    document["dense"] = [{"name": "age", "column": "id"}, {"name": "price", "column": "price"}]
    document["fields"][2]["weights"] = "shares"
    given = {"item_column": "item", **(towers or {"negatives": 5, "reservoir": SIZE})}
    document["labels"] = [{"name": "label", "loss": "in_batch", "towers": given}]
    return parse_config(document)


INPUTS = frozenset({"item", "tags", "price"})


def batches(count: int, rows: int = 40):
    for number in range(count):
        samples = make_samples(1, rows, first=number * rows)
        tags = samples.column("tags").to_pylist()
        shares = [[float(i + 1) for i in range(len(each))] for each in tags]
        items = samples.column("item").to_pylist()
        price = [float(int(item[1:])) for item in items]
        yield samples.append_column("price", pa.array(price)).append_column("shares", pa.array(shares))


def run(config, root, count: int, source: ItemSource | None = None):
    """The source after some batches, and what it returned for each."""
    plan, source = FeaturePlan(config, root), source or ItemSource(config, INPUTS)
    found = []
    for samples in batches(count):
        at_ms = np.zeros(len(samples), np.int64)
        found.append(source.next(samples, at_ms, plan.extract(samples, at_ms)))
    return source, found


def test_drawn_items_have_the_inputs_of_their_newest_sample_and_no_others(tmp_path):
    config = config_of()
    plan = FeaturePlan(config, tmp_path)
    newest: dict[int, tuple] = {}
    source = ItemSource(config, INPUTS)
    for samples in batches(6):
        at_ms = np.zeros(len(samples), np.int64)
        features = plan.extract(samples, at_ms)
        drawn = source.next(samples, at_ms, features).drawn
        tags = features.keys["tags"]
        for row, key in enumerate(features.keys["item"].keys.tolist()):
            part = slice(tags.offsets[row], tags.offsets[row + 1])
            newest[key] = (tags.keys[part].tolist(), tags.weights[part].tolist(), features.dense[row, 1])
        found = drawn.keys["tags"]
        assert len(set(drawn.keys["item"].keys.tolist())) == 5
        for row, key in enumerate(drawn.keys["item"].keys.tolist()):
            part = slice(found.offsets[row], found.offsets[row + 1])
            assert (found.keys[part].tolist(), found.weights[part].tolist(), drawn.dense[row, 1]) == newest[key]
        assert (drawn.dense[:, 0] == 0).all()
        assert drawn.keys["user"].offsets.tolist() == [0] * 6


@pytest.mark.parametrize("towers", [None, {"negatives": 5, "reservoir": SIZE, "log_q": False}, {"log_q": False}])
def test_copy_that_applies_the_changes_has_the_same_bytes_at_every_batch(tmp_path, towers):
    config = config_of(**towers or {})
    plan, ahead = FeaturePlan(config, tmp_path), ItemSource(config, INPUTS)
    follower = ahead.copy()
    for samples in batches(5):
        at_ms = np.zeros(len(samples), np.int64)
        follower.apply(ahead.next(samples, at_ms, plan.extract(samples, at_ms)).change)
        assert follower.to_bytes() == ahead.to_bytes()
        again = ItemSource(config, INPUTS)
        again.load(follower.to_bytes())
        assert again.to_bytes() == follower.to_bytes()


def test_draws_follow_from_seed_and_log_and_are_uniform_over_the_items_held(tmp_path):
    first, second = (run(config_of(), tmp_path, 4)[1] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.items.items.tolist() == other.items.items.tolist()
        assert one.items.log_q.tolist() == other.items.log_q.tolist()
    source, _ = run(config_of(), tmp_path, 4)
    counts = np.zeros(SIZE)
    for first_position in range(3_000):
        slots, drawn = source._reservoir.draw(5, first_position)
        assert drawn.all()
        counts[slots] += 1
    assert np.abs(counts / 3_000 - 5 / SIZE).max() < 0.04


def test_few_items_are_drawn_once_and_the_rest_are_no_items(tmp_path):
    config = config_of(negatives=50, reservoir=100)
    _, (found, *_) = run(config, tmp_path, 1)
    drawn = found.items.items[40:]
    held = len(set(found.items.items[:40].tolist()))
    assert (drawn >= 0).sum() == held
    assert len(set(drawn[drawn >= 0].tolist())) == held
    assert found.items.first.sum() == held
    assert found.drawn.dense.shape == (50, 2)


def test_log_q_counts_the_batch_and_the_draw(tmp_path):
    source, found = run(config_of(), tmp_path, 5)
    without, plain = run(config_of(frequency_rate=0.01), tmp_path, 5)[1], found[-1].items
    shares = np.exp(without[-1].items.log_q)
    held = source._reservoir.holds(source._keys_of(list(batches(5))[-1], np.zeros(40, np.int64)))
    np.testing.assert_allclose(np.exp(plain.log_q[:40]), shares + held * 5 / SIZE, rtol=1e-5)
    assert not run(config_of(log_q=False, negatives=5), tmp_path, 2)[1][1].items.log_q.any()


def test_state_of_other_settings_is_not_continued_and_damaged_state_is_refused(tmp_path):
    source, _ = run(config_of(), tmp_path, 2)
    other = ItemSource(config_of(negatives=5, reservoir=13), INPUTS)
    empty = other.to_bytes()
    other.load(source.to_bytes())
    assert other.to_bytes() == empty
    fewer = ItemSource(config_of(), frozenset({"item"}))
    fewer.load(source.to_bytes())
    assert fewer.to_bytes() == ItemSource(config_of(), frozenset({"item"})).to_bytes()
    state = bytearray(source.to_bytes())
    state[40] ^= 1
    with pytest.raises(DamagedError, match="items of two towers"):
        ItemSource(config_of(), INPUTS).load(bytes(state))
