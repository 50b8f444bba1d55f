"""Expiry: rows unseen for too long, then the least important over the budget; by the log's time."""

import numpy as np
import pytest

from pipeline.admission.expire import Sweeper, expired
from pipeline.configuration.model.fields import Adagrad, Expiry
from pipeline.errors import DamagedError
from pipeline.trainer.tables.table import Table

STATISTICS = [("count", "<u4"), ("last_seen_s", "<u4"), ("importance", "<f4"), ("unsettled", "<f4")]
HALF_LIFE_S = 1_000.0


def expiry_plan(
    rows: list[tuple[int, int, float]], now_s: int, row_bytes: int = 10, **limits
) -> tuple[list[int], list[int]]:
    """Keys unseen and over budget, of rows (key, last seen, importance)."""
    keys = np.array([key for key, _, _ in rows], np.uint64)
    statistics = np.array([(1, seen, importance, 0.5) for _, seen, importance in rows], STATISTICS)
    plan = expired(keys, statistics, now_s, Expiry(**limits), row_bytes, HALF_LIFE_S)
    return plan.unseen.tolist(), plan.over_budget.tolist()


def test_row_is_removed_when_unseen_for_its_time_to_live_and_not_a_second_before():
    rows = [(1, 40, 1.0), (2, 41, 1.0)]
    assert expiry_plan(rows, now_s=100, ttl_s=60) == ([1], [])


def test_nothing_is_removed_without_limits():
    assert expiry_plan([(1, 0, 0.0)], now_s=10**9) == ([], [])


def test_budget_removes_the_least_important_and_only_as_many_as_needed():
    rows = [(1, 100, 3.0), (2, 100, 1.0), (3, 100, 2.0), (4, 100, 4.0)]
    assert expiry_plan(rows, now_s=100, budget_bytes=29) == ([], [2, 3])
    assert expiry_plan(rows, now_s=100, budget_bytes=30) == ([], [2])
    assert expiry_plan(rows, now_s=100, budget_bytes=40) == ([], [])


def test_importance_counts_as_decayed_to_now():
    rows = [(1, 0, 3.9), (2, 2_000, 1.0)]  # 3.9 is below 1 after two half-lives
    assert expiry_plan(rows, now_s=2_000, budget_bytes=10) == ([], [1])
    rows = [(1, 0, 4.1), (2, 2_000, 1.0)]
    assert expiry_plan(rows, now_s=2_000, budget_bytes=10) == ([], [2])


def test_order_of_long_unseen_rows_is_not_lost_to_rounding():
    rows = [(1, 1_000, 1.0), (2, 0, 1.0)]
    assert expiry_plan(rows, now_s=10**9, budget_bytes=10) == ([], [2])


def test_row_without_any_importance_is_removed_first():
    assert expiry_plan([(1, 0, 1e-30), (2, 100, 0.0)], now_s=100, budget_bytes=10) == ([], [2])


def test_smaller_key_is_removed_first_among_equals():
    assert expiry_plan([(9, 5, 1.0), (4, 5, 1.0), (6, 5, 1.0)], now_s=5, budget_bytes=10) == ([], [4, 6])


def test_unseen_rows_are_removed_before_the_budget_is_applied():
    rows = [(1, 0, 9.0), (2, 100, 1.0), (3, 100, 2.0)]
    assert expiry_plan(rows, now_s=100, ttl_s=50, budget_bytes=20) == ([1], [])
    assert expiry_plan(rows, now_s=100, ttl_s=50, budget_bytes=19) == ([1], [2])


def table_of(*keys: int) -> Table:
    table = Table(2, Adagrad(), 1, 0.01, HALF_LIFE_S)
    table.admit(np.array(keys, np.uint64), 0)
    return table


def test_sweep_of_a_table_names_what_its_limits_remove():
    table = table_of(1, 2, 3)
    seen = np.array([2], np.uint64)
    table.update(seen, np.ones((1, 2), np.float32), np.ones(1, np.uint32), 500)
    assert Sweeper(Expiry(ttl_s=400), HALF_LIFE_S).sweep(table, 500).tolist() == [1, 3]


def test_sweep_happens_once_per_period_of_the_log():
    table, sweeper = table_of(1), Sweeper(Expiry(ttl_s=700, sweep_every_s=600), HALF_LIFE_S)
    assert sweeper.sweep(table, 600).tolist() == []
    assert sweeper.sweep(table, 1_199).tolist() == []
    assert sweeper.due(1_200)
    assert sweeper.sweep(table, 1_200).tolist() == [1]


def test_no_sweep_is_due_without_limits():
    assert not Sweeper(Expiry(), HALF_LIFE_S).due(10**9)


def test_restored_sweeper_waits_like_the_original():
    limits = Expiry(ttl_s=1, sweep_every_s=600)
    original = Sweeper(limits, HALF_LIFE_S)
    original.sweep(table_of(1), 700)
    restored = Sweeper.from_bytes(limits, HALF_LIFE_S, original.to_bytes())
    assert (restored.due(1_199), restored.due(1_200)) == (False, True)
    assert restored.to_bytes() == original.to_bytes()


def test_damaged_sweeper_state_is_refused():
    with pytest.raises(DamagedError, match="expiry state is b'short'"):
        Sweeper.from_bytes(Expiry(), HALF_LIFE_S, b"short")


def test_sweeper_state_of_an_earlier_format_is_refused():
    state = b"FRSHSWP1" + Sweeper(Expiry(), HALF_LIFE_S).to_bytes()[8:]
    with pytest.raises(DamagedError, match=r"expiry state is b'FRSHSWP1.*this release reads 16 bytes that begin with"):
        Sweeper.from_bytes(Expiry(), HALF_LIFE_S, state)


def test_the_sweeper_state_keeps_its_layout():
    assert Sweeper(Expiry(), HALF_LIFE_S).to_bytes().hex() == b"SPRTSWP2".hex() + "ff" * 8
