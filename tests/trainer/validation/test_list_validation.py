"""Validation of the order of lists: against a list at a time, any cut into batches, restarts, and damage."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.model.labels import TopLists
from pipeline.errors import DamagedError
from pipeline.trainer.validation.list_validation import ListedSamples, ListValidation, with_lists
from pipeline.trainer.validation.order_scores import OrderSums, order_scores

TOP = TopLists(k=2, m=4)


def listed(lists, seed=0):
    """Samples of these lists, one a second, with outputs that often are equal."""
    random, n = np.random.default_rng(seed), len(lists)
    own, fine = (random.integers(-3, 4, n) / 2 for _ in range(2))
    at_ms = 1_700_000_000_000 + 1000 * np.arange(n)
    return ListedSamples(pa.array(lists), at_ms, own, fine, random.random(n) < 0.3)


def expected(samples, names, taught=True):
    """(lists, top share, hit rate) a list at a time."""
    longer, shares, clicks, hits = 0, [], 0, 0
    for name in names:
        here = [i for i, each in enumerate(samples.lists.to_pylist()) if each == name]
        own = sorted(here, key=lambda i: (-samples.own[i], i))
        fine = sorted(here, key=lambda i: (-samples.fine[i], i))
        if len(here) > TOP.k:
            longer += 1
            clicks += sum(bool(samples.clicked[i]) for i in here)
            hits += sum(bool(samples.clicked[i]) for i in own[: TOP.k])
        if len(here) > TOP.m and taught:
            shares.append(len(set(fine[: TOP.k]) & set(own[: TOP.m])) / TOP.k)
    return longer, np.mean(shares) if shares else None, hits / clicks if clicks else None


def metrics_of(validation):
    total = validation.report()["total"]
    return total["lists"], total["top_share"], total["hit_rate"]


LENGTHS = [5, 1, 7, 2, 3, 12, 4, 6, 5, 9, 2, 30, 3, 8]
NAMES = [f"request {i}" for i, length in enumerate(LENGTHS) for _ in range(length)]


@pytest.mark.parametrize("taught", [True, False])
def test_metrics_are_those_of_a_list_at_a_time_without_the_one_that_is_open(taught):
    samples, validation = listed(NAMES), ListValidation(TOP, taught)
    validation.score(samples)
    wanted = expected(samples, [f"request {i}" for i in range(len(LENGTHS) - 1)], taught)
    assert metrics_of(validation) == pytest.approx(wanted)
    assert (wanted[1] is not None) == taught


@pytest.mark.parametrize("seed", range(4))
def test_any_cut_into_batches_and_any_restart_gives_the_same_bytes(seed):
    samples, whole = listed(NAMES, seed), ListValidation(TOP, True)
    whole.score(samples)
    random = np.random.default_rng(seed)
    edges = [0, *sorted(random.integers(0, len(NAMES), 9).tolist()), len(NAMES)]
    cut = ListValidation(TOP, True)
    for start, stop in pairwise(edges):
        here = np.zeros(len(NAMES), bool)
        here[start:stop] = True
        cut.score(samples.where(here))
        if random.random() < 0.5:
            state, cut = cut.to_bytes(), ListValidation(TOP, True)
            cut.load(state)
    assert cut.to_bytes() == whole.to_bytes()
    assert metrics_of(cut)[0] == sum(length > TOP.k for length in LENGTHS[:-1])


def test_lists_that_stand_between_each_other_are_complete_but_that_of_the_last_sample():
    samples = listed(["a", "b"] * 6 + ["c", "b"])
    validation = ListValidation(TOP, True)
    validation.score(samples)
    assert metrics_of(validation) == pytest.approx(expected(samples, ["a", "c"]))


@pytest.mark.parametrize(("length", "counted"), [(2, (0, 0)), (3, (1, 0)), (4, (1, 0)), (5, (1, 1))])
def test_a_list_counts_if_it_is_longer_than_its_top(length, counted):
    samples = listed(["a"] * length)
    found = order_scores(np.zeros(length, np.int64), samples.own, samples.fine, np.ones(length, bool), TOP)
    assert tuple(found.terms[:2, 0]) == counted
    assert found.terms[3, 0] == length * counted[0]


def test_a_list_without_an_end_is_counted_in_pieces():
    validation = ListValidation(TOP, True)
    for _ in range(2):
        validation.score(listed(["all"] * 40_000))
    assert metrics_of(validation)[0] == 1
    assert len(validation.to_bytes()) < 1_000


def test_nothing_is_defined_before_a_list_is_complete():
    assert metrics_of(ListValidation(TOP, True)) == (0, None, None)
    assert OrderSums().metrics().hit_rate is None


def test_other_settings_begin_again():
    validation = ListValidation(TOP, True)
    validation.score(listed(NAMES))
    for other in (ListValidation(TopLists(k=2, m=5), True), ListValidation(TOP, False)):
        other.load(validation.to_bytes())
        assert metrics_of(other)[0] == 0


@pytest.mark.parametrize(
    "state", [b"", b"{", b"[]", b"{}", b'{"settings":[2,4,true],"held":[[1],["x"]],"validation":{}}']
)
def test_a_damaged_state_is_refused(state):
    with pytest.raises(DamagedError):
        ListValidation(TOP, True).load(state)


def test_the_report_of_a_label_gains_the_metrics_of_its_lists_by_hour():
    label = {"total": {"auc": 0.5}, "windows": [{"start_ms": 0, "auc": 0.4}, {"start_ms": 5, "auc": 0.6}]}
    lists = {"total": {"hit_rate": 0.1}, "windows": [{"start_ms": 0, "hit_rate": 0.2}]}
    assert with_lists(label, lists) == {
        "total": {"auc": 0.5, "hit_rate": 0.1},
        "windows": [{"start_ms": 0, "auc": 0.4, "hit_rate": 0.2}, {"start_ms": 5, "auc": 0.6}],
    }
