"""The publisher: which rows are sent at which precision, and that every withheld row is sent later."""

import numpy as np
import pytest

from pipeline.publish.price.priced_rows import ServedRows, score_rows
from pipeline.publish.publisher import Publisher, PublishSettings, TouchedRows, VersionRange
from pipeline.versions.deltas.delta import decode_delta, served_digest
from pipeline.versions.deltas.rounding import RowRounding, as_read
from pipeline.versions.deltas.served_view import ServedView
from tests.support.synthetic.trainer import DIMS, SyntheticTrainer, project_at

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


def test_known_rows_are_sent_as_handles_only(trainer):
    first = trainer.commit(touched=trainer.change(200, 0), flush=True)
    assert len(first.prepared.delta.fields["user"].new_keys) > 50
    second = trainer.commit(touched=trainer.change(200, 0)).prepared.delta.fields["user"]
    assert len(second.handles) > len(second.new_keys)


def test_withheld_rows_are_those_worth_less_than_their_bytes_and_a_flush_sends_them_all(trainer):
    trainer.commit(touched=trainer.change(200, 0))
    commit = trainer.commit(touched=trainer.change(200, 0))
    publisher, price = trainer.publisher, commit.prepared.price
    withheld = publisher.withheld("user")
    assert len(withheld)
    stored, view = trainer.tables["user"].rows(withheld), publisher.views["user"]
    weights, bits, _ = view.lookup(withheld)
    served = ServedRows(weights, bits, view.exponents(withheld))
    scores = score_rows(stored["weights"], served, stored["curvature"].copy(), price.unit)
    half_lives = (120 - stored["last_seen_s"]) / trainer.project.config.train.half_life_s
    assert scores.improves.all()
    assert (scores.worth * np.exp2(-half_lives) <= price.per_byte * scores.cost_bytes * (1 + 1e-6)).all()
    trainer.commit(touched={}, flush=True)
    assert len(publisher.withheld("user")) == 0
    error = np.linalg.norm(view.decode(withheld) - stored["weights"], axis=1)
    step = np.sqrt(price.unit / np.maximum(stored["curvature"], 1e-30))
    assert (error <= np.minimum(step * np.sqrt(16), np.linalg.norm(stored["weights"], axis=1) * 1.001)).all()


def test_a_withheld_row_is_sent_in_a_later_commit_that_does_not_touch_it_once_the_price_is_lower(trainer):
    trainer.commit(touched=trainer.change(200, 0))
    trainer.commit(touched=trainer.change(200, 0))
    waiting = set(trainer.publisher.withheld("user").tolist())
    trainer.loss /= 8
    trainer.commit(touched={})
    assert waiting - set(trainer.publisher.withheld("user").tolist())


@pytest.mark.parametrize("loss", [1e-6, 1e-4, 1e-2])
def test_a_restart_at_every_commit_gives_the_same_deltas(tmp_path, loss):
    encoded = []
    for restarts in (False, True):
        trainer = SyntheticTrainer(project_at(tmp_path / str(restarts), publish={"loss": loss}), keys=3_000)
        for number in range(12):
            trainer.loss *= 1.3
            if number % 5 == 2:
                trainer.publisher.correct(0.7 * loss)
            trainer.commit(touched=trainer.change(600, 20), flush=number == 8, hold=number == 5)
            if restarts:
                trainer.restart()
        encoded.append([commit.prepared.encoded for commit in trainer.commits])
        trainer.close()
    assert encoded[0] == encoded[1]


def test_a_smaller_loss_sends_more_bytes(tmp_path):
    sizes = []
    for loss in (1e-2, 1e-3, 1e-4):
        trainer = SyntheticTrainer(project_at(tmp_path / str(loss), publish={"loss": loss}), keys=2_000)
        for _ in range(5):
            trainer.commit(touched=trainer.change(2_000, 0))
        sizes.append(sum(len(commit.prepared.encoded) for commit in trainer.commits))
        trainer.close()
    assert sizes[0] < sizes[1] < sizes[2]


def test_the_loss_by_what_serving_holds_is_near_the_one_allowed(tmp_path):
    for loss in (1e-3, 1e-4):
        trainer = SyntheticTrainer(project_at(tmp_path / str(loss), publish={"loss": loss}), keys=2_000)
        for _ in range(8):
            trainer.commit(touched=trainer.change(2_000, 0))
        estimate, exact = trainer.commits[-1].prepared.price.estimate, 0.0
        for name, table in trainer.tables.items():
            stored = table.rows(table.keys())
            lag = stored["weights"] - trainer.publisher.views[name].decode(table.keys())
            half_lives = (8 * 60 - stored["last_seen_s"]) / trainer.project.config.train.half_life_s
            exact += float(((lag**2).sum(axis=1) * stored["curvature"] / 2 * np.exp2(-half_lives)).sum())
        assert estimate == pytest.approx(exact / trainer.loss, rel=1e-4)
        assert loss / 3 < estimate < loss * 2
        trainer.close()


def test_the_sample_of_a_large_table_gives_the_loss_of_all_rows(tmp_path):
    trainer = SyntheticTrainer(project_at(tmp_path))
    random, count = np.random.default_rng(1), 200_000
    rows = np.zeros(count, trainer.tables["user"].dtype)
    rows["weights"] = random.normal(0, 0.05, (count, 16))
    rows["curvature"] = random.pareto(1.0, count) * 100
    keys = np.sort(random.integers(0, 2**64, count, np.uint64))
    trainer.tables["user"].stored = dict(zip(keys.tolist(), rows, strict=True))
    touched = TouchedRows(keys, rows, NONE)
    prepared = trainer.publisher.prepare(VersionRange(0, 0, 1, 0, 1, 0, 60_000), {"user": touched}, b"", loss=1e7)
    assert prepared.price.halvings == 2
    lag = rows["weights"] - trainer.publisher.views["user"].decode(touched.keys)
    exact = ((lag.astype(np.float64) ** 2).sum(axis=1) * rows["curvature"]).sum() / 2 / 1e7
    assert prepared.price.estimate == pytest.approx(exact, rel=0.03)
    trainer.close()


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
    trainer.tables["user"].put(int(key[0]), rows(1, 16)[0], 1e6)
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
    views = {name: ServedView(dim) for name, dim in DIMS.items()}
    trainer.publisher = Publisher(PublishSettings.of(project.config), trainer.tables, views)
    delta = trainer.commit(touched={}).prepared.delta
    assert all(len(change) == 0 for change in delta.fields.values())
    assert delta.dense == trainer.dense
    trainer.close()


@pytest.mark.parametrize("quantise", [8, 4, 2, "ternary", 1])
def test_a_table_trained_for_few_bits_is_served_exactly_as_training_reads_it(tmp_path, quantise):
    trainer = SyntheticTrainer(project_at(tmp_path, publish={"loss": 1e-9}))
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
        table.put(int(key), (weights * np.float32(1.001)).astype(np.float32), 50.0)
    prepared = trainer.commit(touched={"user": touched_of(trainer, keys, NONE)}).prepared
    assert not len(prepared.delta.fields["user"])
    assert not len(trainer.publisher.withheld("user"))


def test_a_row_of_zeros_is_sent_with_a_full_only(trainer):
    table = trainer.tables["user"]
    table.rounding = RowRounding("ternary")
    table.put(1, np.zeros(16, np.float32), 0.0)
    assert not len(
        trainer.commit(touched={"user": touched_of(trainer, np.uint64([1]), NONE)}).prepared.delta.fields["user"]
    )
    assert trainer.commit(touched={}, flush=True).prepared.delta.fields["user"].new_keys.tolist() == [1]


def test_rows_of_more_importance_are_sent_by_their_curvature(trainer):
    table = trainer.tables["user"]
    table.rounding = RowRounding(1, below=2.0)
    for key in range(1, 200):
        table.put(key, rows(1, 16, key)[0], 1e6, importance=[0.5, 2.0, 300.0][key % 3])
    prepared = trainer.commit(touched={"user": touched_of(trainer, table.keys(), NONE)}, flush=True).prepared
    view, stored = trainer.publisher.views["user"], table.rows(table.keys())
    served, few = view.decode(table.keys()), stored["importance"] < 2
    np.testing.assert_array_equal(served[few], as_read(stored, table.rounding)[few])
    error = np.abs(served - stored["weights"]).max(axis=1)
    assert error[few].min() > error[~few].max()
    assert prepared.complete


def test_changing_the_bits_sends_what_serving_has_otherwise(trainer):
    table = trainer.tables["user"]
    trainer.commit(flush=True)
    table.rounding = RowRounding("ternary")
    trainer.restart()
    read, served = (
        as_read(table.rows(table.keys()), table.rounding),
        trainer.publisher.views["user"].decode(table.keys()),
    )
    differs = (read != served).any(axis=1)
    assert differs.any()
    assert trainer.publisher.withheld("user").tolist() == table.keys()[differs].tolist()
    assert trainer.commit(touched={}, flush=True).prepared.complete
    np.testing.assert_array_equal(trainer.publisher.views["user"].decode(table.keys()), read)
