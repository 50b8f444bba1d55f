"""The streaming estimate of frequencies against the published recurrence, an occurrence at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.arrays.splitmix import GAMMA, mix
from pipeline.trainer.items.frequency import TABLES, FrequencyEstimate


class Naive:
    """Dicts in place of arrays; one occurrence after the other."""

    def __init__(self, rate: float, buckets: int) -> None:
        self.rate, self.buckets, self.tables = rate, buckets, [dict[int, tuple]() for _ in range(TABLES)]

    def add(self, key: int, at: int) -> None:
        for place, table in zip(self.places(key), self.tables, strict=True):
            if place not in table:
                table[place] = (at, at + 1.0, 1)
                continue
            last, gap, count = table[place]
            rate = max(self.rate, 1 / count)
            table[place] = (at, gap + rate * (at - last - gap), count + 1)

    def share(self, key: int) -> float:
        return 1 / max(1.0, *(table[place][1] for place, table in zip(self.places(key), self.tables, strict=True)))

    def places(self, key: int) -> list[int]:
        salts = mix(np.arange(1, TABLES + 1, dtype=np.uint64) * GAMMA)
        return [int(mix(np.array([key], np.uint64) ^ salt)[0] % np.uint64(self.buckets)) for salt in salts]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=30), min_size=1, max_size=8),
    st.sampled_from([0.01, 0.3, 1.0]),
    st.sampled_from([1, 7, 4096]),
)
def test_any_batches_give_the_estimate_of_one_occurrence_at_a_time(batches, rate, buckets):
    estimate, follower = FrequencyEstimate(rate, buckets), FrequencyEstimate(rate, buckets)
    naive, at = Naive(rate, buckets), 0
    for batch in batches:
        keys = np.array(batch, np.uint64)
        follower.apply(estimate.advance(keys, at))
        for key in batch:
            naive.add(key, at)
            at += 1
        wanted = [naive.share(key) for key in batch]
        assert estimate.shares(keys, at).tolist() == pytest.approx(wanted, rel=1e-12)
        for cells, table in zip(estimate.cells, naive.tables, strict=True):
            found = {int(place): cells[place].item() for place in np.flatnonzero(cells["count"])}
            assert found == table
    assert follower.cells.tobytes() == estimate.cells.tobytes()


def test_large_positions_and_full_counts_are_those_of_one_occurrence_at_a_time():
    estimate, naive, most = FrequencyEstimate(0.01, 16), Naive(0.01, 16), 2**32 - 1
    keys, first = np.arange(8, dtype=np.uint64).repeat(3), 2**52
    estimate.advance(keys, first)
    for at, key in enumerate(keys.tolist(), first):
        naive.add(key, at)
    for cells, table in zip(estimate.cells, naive.tables, strict=True):
        assert {place: cells[place].item() for place in table} == table
    estimate.cells["count"] = most
    estimate.advance(keys, first + len(keys))
    assert set(estimate.cells["count"].ravel().tolist()) == {most}


def test_estimate_is_near_the_shares_of_a_skewed_stream_and_follows_them_when_they_change():
    random = np.random.default_rng(4)
    shares = np.arange(1, 101) ** -1.0
    shares /= shares.sum()
    estimate = FrequencyEstimate(0.02, 1 << 14)
    for turn in range(2):
        order = np.arange(100) if turn == 0 else np.arange(100)[::-1]
        for start in range(0, 30_000, 500):
            items = order[random.choice(100, 500, p=shares)]
            estimate.advance(items.astype(np.uint64), turn * 30_000 + start)
        found = estimate.shares(order[:20].astype(np.uint64), 60_000)
        assert np.abs(np.log(found / shares[:20])).max() < 0.7
        assert abs(np.log(found / shares[:20]).mean()) < 0.2


def test_an_item_without_occurrence_has_the_share_of_one_among_all():
    estimate = FrequencyEstimate(0.1, 1 << 14)
    estimate.advance(np.zeros(99, np.uint64), 0)
    assert estimate.shares(np.array([5], np.uint64), 99).tolist() == [0.01]
