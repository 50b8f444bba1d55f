"""The publisher: which rows are sent at which precision, and that every withheld row is sent later."""

import numpy as np
import pytest

from pipeline.publish.precision import movement_worth, quantize, send_cost_bytes, warranted_bits
from pipeline.publish.publisher import Publisher, TouchedRows
from pipeline.publish.withheld import select_rows
from pipeline.versions.deltas.delta import decode_delta, served_digest
from pipeline.versions.deltas.rounding import RowRounding, as_read
from pipeline.versions.deltas.served_view import ServedView
from tests.support.world.synthetic import DIMS, SyntheticTrainer, project_at

NONE = np.empty(0, np.uint64)


@pytest.fixture
def trainer(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    yield trainer
    trainer.close()


def rows(n: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.05, (n, dim)).astype(np.float32)


def touched_of(trainer: SyntheticTrainer, keys: np.ndarray, removed: np.ndarray) -> TouchedRows:
    return TouchedRows(keys, trainer.tables["user"].rows(keys), removed)


def test_worth_grows_with_importance_and_relative_movement():
    moved, length, importance = np.float32([1, 1, 1]), np.float32([2, 2, 4]), np.float32([1, 3, 1])
    assert movement_worth(moved, length, importance).tolist() == [0.5, 1.5, 0.25]


def test_selection_stops_at_the_row_that_completes_the_share():
    worth = np.float32([5, 3, 1, 1])
    assert select_rows(worth, worth / 8, 0.5).tolist() == [True, False, False, False]
    assert select_rows(worth, worth / 8, 0.51).tolist() == [True, True, False, False]
    assert select_rows(worth, worth / 8, 1.0).tolist() == [True] * 4


def test_selection_prefers_the_row_that_costs_fewer_bytes():
    assert select_rows(np.float32([1, 1]), np.float32([1 / 64, 1 / 4]), 0.4).tolist() == [False, True]


def test_a_row_that_serving_does_not_hold_costs_its_key_as_well():
    known, new = send_cost_bytes(16, np.array([True, False]))
    assert new - known > 7


def test_no_withheld_rows_select_none():
    assert not select_rows(np.zeros(3, np.float32), np.zeros(3, np.float32), 1.0).any()
    assert len(select_rows(np.empty(0, np.float32), np.empty(0, np.float32), 1.0)) == 0


def test_precision_needs_both_importance_and_convergence():
    importance = np.float32([100, 100, 1, 100])
    convergence = np.float32([0.999999, 0.5, 0.999999, 0.95])
    crowd = np.ones(10_000, np.float32)
    bits = warranted_bits(np.concatenate([importance, crowd]), np.concatenate([convergence, crowd * 0.5]))
    assert bits[:4].tolist() == [32, 4, 4, 8]


def unsettled(n, bits):
    """What `quantize` is given besides weights: served precisions and exponents, importance, and no convergence."""
    return np.full(n, bits, np.uint8), np.full(n, -9, np.int8), np.ones(n, np.float32), np.zeros(n, np.float32)


def test_a_row_that_serving_holds_exactly_is_skipped():
    weights = rows(3)
    bits, _ = quantize(weights, weights, *unsettled(3, 32))
    assert bits.tolist() == [0, 0, 0]


def test_a_movement_below_the_error_of_its_precision_is_skipped():
    weights = rows(50)
    served = weights + np.float32(1e-5)
    bits, _ = quantize(weights, served, *unsettled(50, 4))
    assert not bits.any()


def test_a_precise_row_that_moves_little_is_sent_as_precisely_again():
    weights = rows(50)
    served = weights * np.float32(1.04)
    bits, _ = quantize(weights, served, *unsettled(50, 8))
    assert set(bits.tolist()) == {8}


def test_a_precise_row_that_moves_far_and_is_unsettled_is_sent_coarsely():
    weights = rows(50)
    bits, _ = quantize(weights, -weights, *unsettled(50, 8))
    assert set(bits.tolist()) == {4}


def test_an_unknown_row_is_sent_unless_it_is_all_zeros():
    weights = np.concatenate([rows(1), np.zeros((1, 8), np.float32)])
    bits, _ = quantize(weights, np.zeros_like(weights), *unsettled(2, 0))
    assert (bits > 0).tolist() == [True, False]


def test_new_rows_are_sent_with_key_and_new_handle(trainer):
    trainer.commit(touched=trainer.change(30, 0), flush=True)
    change = trainer.commits[0].prepared.delta.fields["user"]
    assert len(change.handles) == 0
    assert sorted(change.new_keys.tolist()) == trainer.tables["user"].keys().tolist()
    assert sorted(change.new_handles.tolist()) == list(range(len(change.new_keys)))


def test_a_new_row_of_little_worth_is_withheld(trainer):
    trainer.commit(touched=trainer.change(200, 0))
    view, withheld = trainer.publisher.views["user"], trainer.publisher.withheld("user")
    assert (view.bits(withheld) == 0).any()
    trainer.commit(touched={}, flush=True)
    assert (view.bits(withheld) > 0).all()


@pytest.mark.parametrize("count", [1, 2])
def test_scoring_does_not_change_the_commits_rows(trainer, count):
    """Scoring replaces importance 0 by the mean of the others; the commit's rows must not contain that."""
    keys = np.arange(1, count + 1, dtype=np.uint64)
    for key in keys:
        trainer.tables["user"].put(int(key), np.full(DIMS["user"], 0.5, np.float32), importance=0.0, unsettled=1.0)
    touched = touched_of(trainer, keys, NONE)
    before = touched.rows.copy()
    trainer.commit(touched={"user": touched})
    assert touched.rows.tobytes() == before.tobytes()


def test_known_rows_are_sent_as_handles_only(trainer):
    first = trainer.commit(touched=trainer.change(200, 0), flush=True)
    assert len(first.prepared.delta.fields["user"].new_keys) > 50
    second = trainer.commit(touched=trainer.change(200, 0)).prepared.delta.fields["user"]
    assert len(second.handles) > len(second.new_keys)


def test_a_small_share_withholds_rows_and_a_flush_sends_them_all(trainer):
    trainer.commit(touched=trainer.change(200, 0))
    trainer.commit(touched=trainer.change(200, 0))
    withheld = trainer.publisher.withheld("user")
    assert len(withheld)
    trainer.commit(touched={}, flush=True)
    assert len(trainer.publisher.withheld("user")) == 0
    served = trainer.publisher.views["user"].decode(withheld)
    truth = trainer.tables["user"].rows(withheld)["weights"]
    error = np.linalg.norm(served - truth, axis=1) / np.linalg.norm(truth, axis=1)
    assert np.all(error < 0.15)


def test_a_withheld_row_is_sent_in_a_later_commit_that_does_not_touch_it(trainer):
    trainer.commit(touched=trainer.change(200, 0))
    trainer.commit(touched=trainer.change(200, 0))
    waiting = set(trainer.publisher.withheld("user").tolist())
    for _ in range(12):
        trainer.commit(touched={})
    left = set(trainer.publisher.withheld("user").tolist())
    assert left < waiting


def test_a_restart_finds_every_row_that_sending_would_improve(trainer):
    for _ in range(4):
        trainer.commit()
    before = {name: set(trainer.publisher.withheld(name).tolist()) for name in DIMS}
    trainer.restart()
    for name in DIMS:
        found = set(trainer.publisher.withheld(name).tolist())
        # Sending the others at the precision they warrant would improve nothing.
        others = np.array(sorted(before[name] - found), np.uint64)
        rows = trainer.tables[name].rows(others)
        served, served_bits, _ = trainer.publisher.views[name].lookup(others)
        importance, convergence = rows["importance"].copy(), 1 - rows["unsettled"]
        exponents = trainer.publisher.views[name].exponents(others)
        bits, _ = quantize(rows["weights"], served, served_bits, exponents, importance, convergence)
        assert not bits.any()


def test_a_removed_row_is_tombstoned_and_no_longer_withheld(trainer):
    trainer.commit(touched=trainer.change(200, 0), flush=True)
    trainer.commit(touched=trainer.change(200, 0))
    removed = trainer.publisher.withheld("user")[:1]
    del trainer.tables["user"].stored[int(removed[0])]
    commit = trainer.commit(touched={"user": touched_of(trainer, NONE, removed)})
    assert removed[0] in commit.prepared.delta.fields["user"].removed
    assert removed[0] not in trainer.publisher.withheld("user")
    assert trainer.publisher.views["user"].bits(removed)[0] == 0


def test_a_row_removed_and_admitted_again_in_one_commit_gets_a_new_handle(trainer):
    trainer.commit(touched=trainer.change(30, 0), flush=True)
    key = trainer.tables["user"].keys()[:1]
    before = trainer.publisher.views["user"].handles(key)[0]
    trainer.tables["user"].put(int(key[0]), rows(1, 16)[0], 1.0, 0.5)
    change = trainer.commit(touched={"user": touched_of(trainer, key, key)}).prepared.delta.fields["user"]
    assert key[0] in change.removed
    assert key[0] in change.new_keys
    assert trainer.publisher.views["user"].handles(key)[0] != before


def test_removing_a_key_that_serving_never_held_sends_no_tombstone(trainer):
    commit = trainer.commit(touched={"user": touched_of(trainer, NONE, np.array([99], np.uint64))})
    assert len(commit.prepared.delta.fields["user"].removed) == 0


def test_handles_are_never_assigned_twice(trainer):
    for _ in range(10):
        trainer.commit(touched=trainer.change(20, 8))
    handles = np.concatenate([s.prepared.delta.fields["user"].new_handles for s in trainer.commits])
    assert len(np.unique(handles)) == len(handles)


def test_deltas_link_consecutive_served_digests(trainer):
    for _ in range(3):
        trainer.commit()
    afters = [s.prepared.delta.after for s in trainer.commits]
    assert [s.prepared.delta.before for s in trainer.commits[1:]] == afters[:-1]
    empty = served_digest({name: ServedView(dim).digest() for name, dim in DIMS.items()}, b"")
    assert trainer.commits[0].prepared.delta.before == empty
    assert decode_delta(trainer.commits[-1].prepared.encoded).after == trainer.publisher.served_digest


def test_the_same_changes_give_the_same_bytes(tmp_path):
    bytes_of = []
    for run in ("one", "two"):
        trainer = SyntheticTrainer(project_at(tmp_path / run), seed=5)
        trainer.run(5)
        bytes_of.append([s.prepared.encoded for s in trainer.commits])
        trainer.close()
    assert bytes_of[0] == bytes_of[1]


def test_withholding_saves_most_bytes_on_skewed_importance(trainer):
    trainer.span = 2_000
    trainer.commit(touched=trainer.change(20_000, 0))
    commit = [trainer.commit(touched=trainer.change(1_000, 0)) for _ in range(4)]
    sent = sum(len(s.prepared.encoded) for s in commit)
    naive = sum((8 + 4 * dim) * len(np.unique(np.arange(780))) for dim in DIMS.values()) * 4
    assert sent * 4 < naive


def test_a_publisher_without_rows_sends_only_dense_weights(tmp_path):
    project = project_at(tmp_path)
    trainer = SyntheticTrainer(project)
    trainer.publisher = Publisher(project.config.publish, trainer.tables, {n: ServedView(d) for n, d in DIMS.items()})
    delta = trainer.commit(touched={}).prepared.delta
    assert all(len(change) == 0 for change in delta.fields.values())
    assert delta.dense == trainer.dense
    trainer.close()


@pytest.mark.parametrize("quantise", [8, 4, 2, "ternary", 1])
def test_a_table_trained_for_few_bits_is_served_exactly_as_training_reads_it(tmp_path, quantise):
    trainer = SyntheticTrainer(project_at(tmp_path, publish={"share": 1.0}))
    rounding, table = RowRounding(quantise), trainer.tables["user"]
    table.rounding = rounding
    for _ in range(4):
        trainer.commit()
        read = as_read(table.rows(table.keys()), rounding)
        np.testing.assert_array_equal(trainer.publisher.views["user"].decode(table.keys()), read)
        assert not len(trainer.publisher.withheld("user"))
    assert set(trainer.publisher.views["user"].bits(table.keys()).tolist()) == {rounding.bits}
    trainer.restart()
    assert not len(trainer.publisher.withheld("user"))
    trainer.close()


def test_a_row_whose_rounded_values_stay_is_not_withheld_and_costs_nothing(trainer):
    table = trainer.tables["user"]
    table.rounding = RowRounding(1)
    trainer.commit(flush=True)
    keys = table.keys()
    for key in keys:
        weights = table.stored[int(key)]["weights"]
        table.put(int(key), (weights * np.float32(1.001)).astype(np.float32), 5.0, 0.5)
    prepared = trainer.commit(touched={"user": touched_of(trainer, keys, NONE)}).prepared
    assert not len(prepared.delta.fields["user"])
    assert not len(trainer.publisher.withheld("user"))


def test_a_row_of_zeros_is_sent_with_a_full_only(trainer):
    table = trainer.tables["user"]
    table.rounding = RowRounding("ternary")
    table.put(1, np.zeros(16, np.float32), 0.0, 1.0)
    assert not len(
        trainer.commit(touched={"user": touched_of(trainer, np.uint64([1]), NONE)}).prepared.delta.fields["user"]
    )
    assert trainer.commit(touched={}, flush=True).prepared.delta.fields["user"].new_keys.tolist() == [1]


def test_rows_of_more_importance_are_sent_at_the_precision_they_warrant(trainer):
    table = trainer.tables["user"]
    table.rounding = RowRounding(1, below=2.0)
    for key in range(1, 200):
        table.put(key, rows(1, 16, key)[0], [0.5, 2.0, 300.0][key % 3], 0.001)
    prepared = trainer.commit(touched={"user": touched_of(trainer, table.keys(), NONE)}, flush=True).prepared
    view, stored = trainer.publisher.views["user"], table.rows(table.keys())
    served, few = view.decode(table.keys()), stored["importance"] < 2
    np.testing.assert_array_equal(served[few], as_read(stored, table.rounding)[few])
    error = np.abs(served - stored["weights"]).max(axis=1)
    assert error[few].min() > error[~few].max()
    assert set(view.bits(table.keys()[~few]).tolist()) == {4, 8}
    assert prepared.complete


def test_changing_the_bits_sends_what_serving_has_otherwise(trainer):
    table = trainer.tables["user"]
    trainer.commit(flush=True)
    table.rounding = RowRounding("ternary")
    trainer.restart()
    assert trainer.publisher.withheld("user").tolist() == table.keys().tolist()
    assert trainer.commit(touched={}, flush=True).prepared.complete
    read = as_read(table.rows(table.keys()), table.rounding)
    np.testing.assert_array_equal(trainer.publisher.views["user"].decode(table.keys()), read)
