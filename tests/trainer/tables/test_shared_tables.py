"""A table that several fields read: trained, restarted, expired, migrated, published and served as one table."""

import threading
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from pipeline.cli.terminal.lookup import find_field, find_table, packed_rows
from pipeline.configuration.project import Project
from pipeline.errors import InputError, MigrationError
from pipeline.features.plan import FeaturePlan
from pipeline.logs.open import open_log
from pipeline.serving.replica import Replica
from pipeline.trainer.run.shard import TrainerShard
from pipeline.trainer.tables.dictionary import Dictionary
from pipeline.trainer.tables.table import row_dtype
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, current_digest, make_project, make_samples, train

ROWS = 640
USER = WRITTEN["fields"][0]
ITEM = {"name": "item", "columns": ["item"], "table": "goods"}
SEEN = {"name": "seen", "columns": ["tags"], "table": "goods", "pooling": "mean"}
GOODS = {"name": "goods", "dim": 4, "optimizer": {"kind": "adagrad"}}


def document(goods: dict | None = None, fields: tuple[dict, ...] = (USER, ITEM, SEEN), **sections) -> dict:
    return {**WRITTEN, "tables": [{**GOODS, **(goods or {})}], "fields": list(fields), **sections}


def samples_of(rows: int, first: int = 0, seed: int = 1) -> pa.RecordBatch:
    """The shop's samples, with items seen before in `tags`: none, one or some, also the item itself."""
    samples, random = make_samples(seed, rows, first), np.random.default_rng([seed, first])
    lists = [[f"i{i}" for i in random.integers(0, 45, random.integers(0, 4))] for _ in range(rows)]
    column = pa.array(lists, pa.list_(pa.string()))
    return samples.set_column(samples.schema.get_field_index("tags"), "tags", column)


def occurrences(samples: pa.RecordBatch) -> Counter:
    return Counter([*samples["item"].to_pylist(), *samples["tags"].flatten().to_pylist()])


def trained(root, written: dict, samples: pa.RecordBatch) -> tuple[Project, str]:
    project = make_project(root, written)
    log = open_log(project)
    append_samples(log, project, samples)
    return project, train(project, log)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("shared"), document(publish={"loss": 1e-9}), samples_of(ROWS))


def rows_of(project: Project, name: str = "goods"):
    store = VersionStore(project)
    change = store.restore(store.current(0)).fields[name]
    return change.keys, change.rows.view(row_dtype(4, 4)).reshape(len(change.keys))


def goods_key(project: Project, item: str) -> int:
    return FeaturePlan(project.config, project.root).key_of("seen", {"tags": item})


def test_a_version_has_one_table_whose_counts_are_the_occurrences_in_both_fields(shop):
    project, _ = shop
    store = VersionStore(project)
    assert set(store.restore(store.current(0)).fields) == {"user", "goods"}
    keys, rows = rows_of(project)
    wanted = {goods_key(project, item): count for item, count in occurrences(samples_of(ROWS)).items()}
    assert dict(zip(keys.tolist(), rows["count"].tolist(), strict=True)) == wanted


def test_restarts_change_no_byte_of_a_shared_table(shop, tmp_path):
    _, digest = shop
    project = make_project(tmp_path, document(publish={"loss": 1e-9}))
    log = open_log(project)
    append_samples(log, project, samples_of(ROWS))
    store, end = VersionStore(project), log.end_offset("samples", 0)
    for stop_offset in (2, 5, end):
        trainer = TrainerShard(project, log, store, 0)
        trainer.train(stop_offset, threading.Event())
        trainer.close()
    assert current_digest(store) == digest


def test_a_declared_table_that_one_field_reads_has_the_bytes_of_one_of_its_own(tmp_path):
    own = {**WRITTEN, "fields": [USER]}
    declared = {**own, "tables": [{"name": "user", "dim": 4}], "fields": [{**USER, "table": "user"}]}
    samples = samples_of(192)
    assert trained(tmp_path / "own", own, samples)[1] == trained(tmp_path / "declared", declared, samples)[1]


def test_a_replica_serves_the_rows_of_a_shared_table_to_both_fields(shop):
    project, _ = shop
    log = open_log(project)
    replica = Replica.for_predictions(project, log)
    replica.catch_up()
    store = VersionStore(project)
    assert replica.digest() == store.ledger.version(store.current(0)).served_digest
    assert replica.export("goods").num_rows == len(rows_of(project)[0])
    instances = [{"user": "u1", "item": "i1", "tags": tags} for tags in (["i1"], [], ["i2", "i1"])]
    same, none, two = replica.load_predictor().inputs(replica.load_predictor().features(instances, 0), replica.lookup)
    goods = replica.lookup("goods", np.array([goods_key(project, item) for item in ("i1", "i2")], np.uint64))
    assert goods.any(axis=1).all()
    np.testing.assert_array_equal(same[4:8], goods[0])
    np.testing.assert_array_equal(same[8:12], goods[0])
    assert not none[8:12].any()
    np.testing.assert_array_equal(two[8:12], (goods[1] + goods[0]) / np.float32(2))


def test_commands_find_the_rows_of_a_table_by_its_name_or_that_of_a_field(shop):
    project, _ = shop
    store = VersionStore(project)
    for name in ("goods", "item", "seen"):
        table = find_table(project, name).name
        assert packed_rows(project, store.restore(store.current(0)), table).tobytes() == rows_of(project)[1].tobytes()
    assert [find_field(project, name).name for name in ("goods", "item", "seen")] == ["item", "item", "seen"]
    with pytest.raises(InputError, match=r"table tags does not exist\. known: user, goods"):
        find_table(project, "tags")


def test_names_of_keys_are_stored_from_every_field_of_a_table(shop):
    project, _ = shop
    items = sorted(occurrences(samples_of(ROWS)))
    keys = np.array([goods_key(project, item) for item in items], np.uint64)
    assert Dictionary(project, 0).values("goods", keys) == items
    assert len(set(items) - set(samples_of(ROWS)["item"].to_pylist())) > 5  # those are from the lists alone


def test_admission_counts_the_occurrences_in_all_fields(tmp_path):
    samples = samples_of(6)
    items, lists = ["i1", "i2", "i3", "i4", "i5", "i6"], [["i2"], [], ["i7"], ["i7", "i8"], [], []]
    for name, column in (("item", pa.array(items)), ("tags", pa.array(lists, pa.list_(pa.string())))):
        samples = samples.set_column(samples.schema.get_field_index(name), name, column)
    project, _ = trained(tmp_path, document({"admission": {"kind": "count", "threshold": 2}}), samples)
    assert set(rows_of(project)[0].tolist()) == {goods_key(project, "i2"), goods_key(project, "i7")}


def test_a_row_expires_when_no_field_has_seen_its_key(tmp_path):
    written = document({"expiry": {"ttl_s": 600.0, "sweep_every_s": 60.0}}, publish={"loss": 1e-9})
    project, _ = trained(tmp_path, written, samples_of(192))
    log, replica = open_log(project), Replica(project, open_log(project))
    replica.catch_up()
    before = replica.export("goods").num_rows
    late = samples_of(8, first=3000, seed=5)
    append_samples(log, project, late)
    train(project, log)
    replica.catch_up()
    served = set(replica.export("goods")["key"].to_pylist())
    assert served == {goods_key(project, item) for item in occurrences(late)}
    assert served == set(rows_of(project)[0].tolist())
    assert len(served) < before


def test_a_new_field_of_a_table_starts_with_its_rows_and_a_changed_table_starts_empty(tmp_path):
    own = {"name": "goods", "columns": ["item"], "dim": 4, "optimizer": {"kind": "adagrad"}}
    project, _ = trained(tmp_path, {**WRITTEN, "fields": [USER, own]}, samples_of(192))
    keys, rows = rows_of(project)
    # The field's own table becomes a declared one, and another field reads it too.
    item = {"name": "goods", "columns": ["item"], "table": "goods"}
    joined = make_project(tmp_path, document(fields=(USER, item, SEEN)))
    log = open_log(joined)
    with pytest.raises(MigrationError, match=r"field goods changed; field seen is new; .*table goods is new"):
        train(joined, log)
    train(joined, log, migrate=True)
    assert rows_of(joined)[0].tolist() == keys.tolist()
    assert rows_of(joined)[1].tobytes() == rows.tobytes()
    # The table stays while one of its fields does.
    left = make_project(tmp_path, document(fields=(USER, SEEN)))
    train(left, log, migrate=True)
    assert rows_of(left)[1].tobytes() == rows.tobytes()
    changed = make_project(tmp_path, document({"init_scale": 0.02}, fields=(USER, SEEN)))
    with pytest.raises(MigrationError, match="table goods changed"):
        train(changed, log)
    train(changed, log, migrate=True)
    assert len(rows_of(changed)[0]) == 0
    # Without its last field the table is dropped.
    dropped = make_project(tmp_path, {**WRITTEN, "fields": [USER]})
    train(dropped, log, migrate=True)
    store = VersionStore(dropped)
    assert set(store.restore(store.current(0)).fields) == {"user"}
