"""The rows of a delta: withheld rows against a dict, the selection against one that sorts all rows."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.publish.withheld import ScoredRows, Withheld, select_rows


def _by_sorting_everything(worth, value, share):
    order = np.argsort(-value, kind="stable")
    carried = np.cumsum(worth[order], dtype=np.float64)
    chosen = np.zeros(len(worth), np.bool_)
    chosen[order[(carried - worth[order] < share * carried[-1]) & (worth[order] > 0)]] = True
    return chosen


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("tail", [0.5, 1.0, 4.0])
def test_selection_equals_selection_by_full_sort(share, tail):
    random = np.random.default_rng(1)
    for rows in (1, 7, 33, 1000):
        # Integers produce ties, and some rows have no worth.
        worth = np.floor(3 * random.pareto(tail, rows)).astype(np.float32)
        assert (select_rows(worth, worth / 16, share) == _by_sorting_everything(worth, worth / 16, share)).all()


@pytest.mark.parametrize("share", [0.01, 0.8, 0.99])
def test_selection_of_any_magnitude_equals_selection_by_full_sort(share):
    random = np.random.default_rng(2)
    for rows in (1, 300, 70_000):
        worth = np.exp(random.normal(0, 5, rows)).astype(np.float32)
        value = worth / random.choice(np.float32([14, 22]), rows)
        assert (select_rows(worth, value, share) == _by_sorting_everything(worth, value, share)).all()


def test_of_equal_rows_the_earlier_are_selected():
    worth = np.full(10, 0.1, np.float32)
    assert select_rows(worth, worth, 0.35).tolist() == [True] * 4 + [False] * 6


def test_nearly_equal_values_are_distinguished():
    value = np.nextafter(np.float32(1), np.float32([0, 2, 0, 2]), dtype=np.float32)
    assert select_rows(np.ones(4, np.float32), value, 0.5).tolist() == [False, True, False, True]


def test_a_share_of_one_selects_every_row_with_worth():
    worth = np.float32([1e30, 1e-30, 0, 1e-45, 3e38])
    assert select_rows(worth, worth, 1.0).tolist() == [True, True, False, True, True]


def test_rows_of_nan_worth_are_never_selected():
    worth = np.float32([np.nan, 1, -1, 0])
    assert select_rows(worth, worth, 1.0).tolist() == [False, True, False, False]


def rows_of(random, count):
    keys = np.unique(random.integers(0, 300, count).astype(np.uint64))
    return keys, random.random(len(keys), np.float32), random.random(len(keys), np.float32)


def test_withheld_rows_agree_with_a_dict():
    random, withheld_rows, model = np.random.default_rng(3), Withheld.empty(), {}
    for step in range(400):
        keys, worth, value = rows_of(random, random.integers(0, 80))
        if step % 3 == 0:
            withheld = random.random(len(keys)) < 0.7
            withheld_rows = withheld_rows.updated(ScoredRows(keys, worth, value, withheld))
            for key, *rest, stays in zip(keys.tolist(), worth.tolist(), value.tolist(), withheld, strict=True):
                model.pop(key, None)
                model.update({key: tuple(rest)} if stays else {})
        elif step % 3 == 1:
            withheld_rows = withheld_rows.without(keys)
            model = {key: row for key, row in model.items() if key not in set(keys.tolist())}
        else:
            chosen = random.random(len(withheld_rows)) < 0.2
            taken, withheld_rows = withheld_rows.split(chosen)
            assert taken.tolist() == [key for key, out in zip(sorted(model), chosen, strict=True) if out]
            model = {key: row for key, row in model.items() if key not in set(taken.tolist())}
        assert withheld_rows.keys.tolist() == sorted(model)
        assert list(zip(withheld_rows.worth.tolist(), withheld_rows.worth_per_byte.tolist(), strict=True)) == [
            model[k] for k in sorted(model)
        ]


def test_parts_are_concatenated_in_order():
    parts = [Withheld(np.uint64([k]), np.float32([k]), np.float32([2 * k])) for k in (1, 2, 7)]
    joined = Withheld.concatenated(parts)
    assert (joined.keys.tolist(), joined.worth.tolist(), joined.worth_per_byte.tolist()) == (
        [1, 2, 7],
        [1, 2, 7],
        [2, 4, 14],
    )
    assert len(Withheld.concatenated([])) == 0
    with pytest.raises(InputError, match="keys: got 1 after 7, wanted ascending keys"):
        Withheld.concatenated(parts[::-2])


@pytest.mark.parametrize(
    "odd",
    [
        [1.0, 2.0],
        np.ones(2),
        np.ones((2, 1), np.float32),
        np.ones(4, np.float32)[::2],
        np.ones(3, np.float32),
        np.broadcast_to(np.float32(1), 2**31),
    ],
    ids=["list", "doubles", "matrix", "apart", "too long", "2^31 elements that are one"],
)
def test_odd_columns_are_refused_by_name(odd):
    good, keys, yes = np.ones(2, np.float32), np.arange(2, dtype=np.uint64), np.ones(2, np.bool_)
    with pytest.raises(InputError, match="worth: got "):
        Withheld(keys, odd, good)
    with pytest.raises(InputError, match="worth_per_byte: got "):
        Withheld(keys, good, odd)
    with pytest.raises(InputError, match="worth_per_byte: got "):
        Withheld.empty().updated(ScoredRows(keys, good, odd, yes))
    with pytest.raises(InputError, match="withheld: got "):
        Withheld.empty().updated(ScoredRows(keys, good, good, odd))
    with pytest.raises(InputError, match="chosen: got "):
        Withheld(keys, good, good).split(odd)
    with pytest.raises(InputError, match="worth_per_byte: got "):
        select_rows(good, odd, 0.5)


def test_keys_that_do_not_ascend_and_invalid_shares_are_refused():
    good = np.ones(2, np.float32)
    for keys in (np.uint64([2, 1]), np.uint64([2, 2])):
        with pytest.raises(InputError, match=r"keys: got \d after 2, wanted ascending keys"):
            Withheld(keys, good, good)
    for share in (0, -1, 1.5, float("nan")):
        with pytest.raises(InputError, match="share: got "):
            select_rows(good, good, share)
