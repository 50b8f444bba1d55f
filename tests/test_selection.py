"""Which rows a delta carries: the quick selection against the plain one that sorts everything."""

import numpy as np
import pytest

from pipeline.publish.precision import select


def _by_sorting_everything(worth, share):
    order = np.argsort(-worth, kind="stable")
    carried = np.cumsum(worth[order], dtype=np.float64)
    chosen = np.zeros(len(worth), np.bool_)
    chosen[order[(carried - worth[order] < share * carried[-1]) & (worth[order] > 0)]] = True
    return chosen


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("tail", [0.5, 1.0, 4.0])
def test_rows_are_chosen_as_if_all_were_sorted(share, tail):
    random = np.random.default_rng(1)
    for rows in (1, 7, 33, 1000):
        # Whole numbers make ties, and some rows are worth nothing.
        worth = np.floor(3 * random.pareto(tail, rows)).astype(np.float32)
        assert (select(worth, worth / 16, share) == _by_sorting_everything(worth, share)).all()
