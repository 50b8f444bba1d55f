"""Raw columns to keys and dense numbers: transforms, user functions, JSON instances, what an operator types."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrays.keys import hash_bytes, hash_column, null_key
from pipeline.configuration.config import Config, parse_config
from pipeline.errors import ConfigError, InputError, ModelError
from pipeline.features.plan import FeaturePlan
from pipeline.features.user_code import load_function

HOUR_MS = 3_600_000
COLUMNS = {
    "id": "string",
    "user": "int",
    "item": "string",
    "price": "float",
    "premium": "bool",
    "tags": "strings",
    "sizes": "ints",
}


def config_of(fields: list[dict], dense: list[dict] | None = None) -> Config:
    events = {"key": ["id"], "impressions": {"columns": COLUMNS}, "clicks": {"columns": {"id": "string"}}}
    return parse_config({"events": events, "fields": fields, "dense": dense or []})


def plan_of(root: Path, *fields: dict, dense: list[dict] | None = None) -> FeaturePlan:
    return FeaturePlan(config_of(list(fields), dense), root)


def keys_of(plan: FeaturePlan, field: str, batch: pa.RecordBatch, at_ms: list[int] | None = None) -> np.ndarray:
    times = np.array(at_ms or [0] * batch.num_rows, np.int64)
    return plan.extract(batch, times).keys[field].keys


def seed_of(field: str) -> int:
    return hash_bytes(field.encode(), 0)


GOLDEN_USER = ["0103347e878f4ef5", "e70984d8dbfa09db"]
GOLDEN_PAIR = ["7072daeecd6dd898", "d65e4100564a5b5a"]
"""Of 7 and null, and of (7, "a") and (null, "b"); the first of each checked with the package xxhash."""

USER = {"name": "user", "columns": ["user"]}


def test_value_is_hashed_under_a_seed_made_from_the_fields_name(tmp_path):
    keys = keys_of(plan_of(tmp_path, USER), "user", pa.record_batch({"user": [7, 8]}))
    assert keys.tolist() == hash_column(pa.array([7, 8]), seed_of("user")).tolist()


def test_golden_keys_never_change(tmp_path):
    plan = plan_of(tmp_path, USER, {"name": "pair", "columns": ["user", "item"], "transform": "cross"})
    batch = pa.record_batch({"user": pa.array([7, None]), "item": ["a", "b"]})
    assert [f"{k:016x}" for k in keys_of(plan, "user", batch)] == GOLDEN_USER
    assert [f"{k:016x}" for k in keys_of(plan, "pair", batch)] == GOLDEN_PAIR


def test_same_value_in_two_fields_has_different_keys(tmp_path):
    plan = plan_of(tmp_path, USER, {"name": "other", "columns": ["user"]})
    batch = pa.record_batch({"user": [7]})
    assert keys_of(plan, "user", batch)[0] != keys_of(plan, "other", batch)[0]


def test_keys_and_identities_do_not_depend_on_the_order_of_fields(tmp_path):
    item = {"name": "item", "columns": ["item"]}
    batch = pa.record_batch({"user": [7], "item": ["a"]})
    one, other = plan_of(tmp_path, USER, item), plan_of(tmp_path, item, USER)
    assert keys_of(one, "item", batch).tolist() == keys_of(other, "item", batch).tolist()
    assert one.identities() == other.identities()


def test_null_has_one_fixed_key_that_no_empty_string_has(tmp_path):
    plan = plan_of(tmp_path, {"name": "item", "columns": ["item"]})
    keys = keys_of(plan, "item", pa.record_batch({"item": pa.array([None, "", None])}))
    assert keys[0] == keys[2] != keys[1]


def test_lists_become_ragged_keys_and_null_or_empty_lists_none(tmp_path):
    plan = plan_of(tmp_path, {"name": "tags", "columns": ["tags"]})
    batch = pa.record_batch({"tags": pa.array([["a", "b"], None, [], ["b"]])})
    found = plan.extract(batch, np.zeros(4, np.int64)).keys["tags"]
    assert found.offsets.tolist() == [0, 2, 2, 2, 3]
    assert found.keys.tolist() == hash_column(pa.array(["a", "b", "b"]), seed_of("tags")).tolist()


def test_slice_of_a_ragged_batch_has_the_keys_of_its_own_rows(tmp_path):
    plan = plan_of(tmp_path, {"name": "tags", "columns": ["tags"]})
    batch = pa.record_batch({"tags": pa.array([["a", "b"], ["c"], None, ["d", "e"]])}).slice(1, 3)
    found = plan.extract(batch, np.zeros(3, np.int64)).keys["tags"]
    assert found.offsets.tolist() == [0, 1, 1, 3]
    assert found.keys.tolist() == hash_column(pa.array(["c", "d", "e"]), seed_of("tags")).tolist()


def test_cross_depends_on_both_values_and_their_order(tmp_path):
    plan = plan_of(tmp_path, {"name": "x", "columns": ["id", "item"], "transform": "cross"})
    batch = pa.record_batch({"id": ["a", "b", "a", "a"], "item": ["b", "a", "c", "b"]})
    keys = keys_of(plan, "x", batch).tolist()
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]


def test_value_of_several_columns_is_their_cross(tmp_path):
    batch = pa.record_batch({"id": ["a"], "item": ["b"]})
    value = plan_of(tmp_path, {"name": "x", "columns": ["id", "item"]})
    cross = plan_of(tmp_path, {"name": "x", "columns": ["id", "item"], "transform": "cross"})
    assert keys_of(value, "x", batch).tolist() == keys_of(cross, "x", batch).tolist()


def test_bucket_boundary_belongs_to_the_bucket_below(tmp_path):
    plan = plan_of(tmp_path, {"name": "p", "columns": ["price"], "transform": "bucket", "boundaries": [1, 5]})
    batch = pa.record_batch({"price": [0.5, 1.0, 1.0001, 5.0, 5.0001, float("nan"), None]})
    expected = hash_column(pa.array([0, 0, 1, 1, 2, None, None]), seed_of("p"))
    assert keys_of(plan, "p", batch).tolist() == expected.tolist()


def test_log2_steps_at_powers_of_two(tmp_path):
    plan = plan_of(tmp_path, {"name": "s", "columns": ["sizes"], "transform": "log2"})
    batch = pa.record_batch({"sizes": pa.array([[0, 1, 2, 3], [2**40 - 2, 2**40 - 1], [-1]])})
    expected = hash_column(pa.array([0, 1, 1, 2, 39, 40, -1]), seed_of("s"))
    assert keys_of(plan, "s", batch).tolist() == expected.tolist()


def test_hour_and_weekday_come_from_the_impressions_time(tmp_path):
    hour = {"name": "hour", "columns": ["at"], "transform": "hour"}
    plan = plan_of(tmp_path, hour, {"name": "day", "columns": ["at"], "transform": "weekday"})
    sunday_ms = 3 * 24 * HOUR_MS  # 1970-01-04
    times = [sunday_ms + 24 * HOUR_MS - 1, sunday_ms + 24 * HOUR_MS]
    batch = pa.record_batch({"user": [1, 1]})
    assert keys_of(plan, "hour", batch, times).tolist() == hash_column(pa.array([23, 0]), seed_of("hour")).tolist()
    assert keys_of(plan, "day", batch, times).tolist() == hash_column(pa.array([6, 0]), seed_of("day")).tolist()


def test_dense_numbers_are_in_order_and_null_is_zero(tmp_path):
    dense = [
        {"name": "money", "column": "price", "transform": "log1p"},
        {"name": "raw", "column": "price"},
        {"name": "flag", "column": "premium"},
    ]
    plan = plan_of(tmp_path, USER, dense=dense)
    batch = pa.record_batch({"price": [np.e - 1, None, -(np.e - 1)], "premium": [True, False, None]})
    found = plan.extract(batch, np.zeros(3, np.int64)).dense
    assert found.dtype == np.float32
    expected = [[1, np.e - 1, 1], [0, 0, 0], [-1, 1 - np.e, 0]]
    assert np.allclose(found, expected)


def test_column_missing_in_an_older_batch_is_null(tmp_path):
    plan = plan_of(tmp_path, {"name": "item", "columns": ["item"]}, {"name": "tags", "columns": ["tags"]})
    features = plan.extract(pa.record_batch({"user": [1, 2]}), np.zeros(2, np.int64))
    assert features.keys["item"].keys.tolist() == [null_key(seed_of("item"))] * 2
    assert features.keys["tags"].offsets.tolist() == [0, 0, 0]


def test_dictionary_and_narrow_columns_have_the_keys_of_the_declared_type(tmp_path):
    plan = plan_of(tmp_path, USER, {"name": "item", "columns": ["item"]})
    plain = pa.record_batch({"user": pa.array([7], pa.int64()), "item": ["a"]})
    packed = pa.record_batch({"user": pa.array([7], pa.int16()), "item": pa.array(["a"]).dictionary_encode()})
    for field in ("user", "item"):
        assert keys_of(plan, field, plain).tolist() == keys_of(plan, field, packed).tolist()


def test_column_of_another_type_is_refused_with_both_types(tmp_path):
    with pytest.raises(InputError, match="column user is string, the configuration declares int"):
        keys_of(plan_of(tmp_path, USER), "user", pa.record_batch({"user": ["seven"]}))


def test_columns_are_those_read_without_the_time(tmp_path):
    hour = {"name": "hour", "columns": ["at"], "transform": "hour"}
    plan = plan_of(tmp_path, hour, USER, dense=[{"name": "d", "column": "price"}])
    assert plan.columns == ("user", "price")


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ({"columns": ["tags", "user"], "transform": "cross"}, "cross reads single values, tags is strings"),
        ({"columns": ["user"], "transform": "cross"}, "cross needs two or more different columns, got user"),
        ({"columns": ["item"], "transform": "log2"}, "log2 needs numbers, item is string"),
        ({"columns": ["price"], "transform": "bucket"}, "bucket needs ascending boundaries"),
        ({"columns": ["price"], "transform": "bucket", "boundaries": [2, 1]}, "bucket needs ascending boundaries"),
        ({"columns": ["price"], "transform": "bucket", "boundaries": [1, 1]}, "bucket needs ascending boundaries"),
        ({"columns": ["user"], "transform": "hour"}, "hour reads the column at, got user"),
        ({"columns": ["user"], "transform": "squash"}, "transform squash is unknown. known: value"),
        ({"columns": ["user", "price"], "transform": "log2"}, "log2 reads one column, got user, price"),
    ],
)
def test_invalid_field_is_refused_by_name(tmp_path, field, problem):
    with pytest.raises(ConfigError, match="field f: " + problem.replace(".", r"\.")):
        plan_of(tmp_path, {"name": "f", **field})


def test_all_problems_of_the_features_are_reported_at_once(tmp_path):
    bad = {"name": "f", "columns": ["user"], "transform": "hour"}
    with pytest.raises(ConfigError) as report:
        plan_of(tmp_path, bad, {"name": "g", "columns": ["item"], "transform": "log2"})
    assert "field f: hour reads the column at" in str(report.value)
    assert "field g: log2 needs numbers, item is string" in str(report.value)


def test_a_dense_input_of_a_column_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="dense d reads column item of type string"):
        plan_of(tmp_path, USER, dense=[{"name": "d", "column": "item"}])


# User functions.


def write_model(root: Path, source: str) -> None:
    (root / "model.py").write_text(source)


def user_plan(root: Path, source: str, columns: list[str] | None = None) -> FeaturePlan:
    write_model(root, source)
    return plan_of(root, {"name": "f", "columns": columns or ["user", "item"], "transform": "model:f"})


BATCH = pa.record_batch({"user": [1, 2], "item": ["a", "b"]})


def test_user_function_gets_columns_and_times_and_its_values_are_hashed(tmp_path):
    source = "import pyarrow as pa\ndef f(user, item, at_ms):\n"
    source += "    return pa.array([f'{u}-{i}-{t}' for u, i, t in zip(user.to_pylist(), item.to_pylist(), at_ms)])\n"
    plan = user_plan(tmp_path, source)
    expected = hash_column(pa.array(["1-a-10", "2-b-20"]), seed_of("f"))
    assert keys_of(plan, "f", BATCH, [10, 20]).tolist() == expected.tolist()


def test_user_function_may_return_lists(tmp_path):
    plan = user_plan(
        tmp_path, "import pyarrow as pa\ndef f(u, i, at): return pa.array([[1, 2], []], pa.list_(pa.int32()))"
    )
    found = plan.extract(BATCH, np.zeros(2, np.int64)).keys["f"]
    assert found.offsets.tolist() == [0, 2, 2]
    assert found.keys.tolist() == hash_column(pa.array([1, 2]), seed_of("f")).tolist()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return pa.array([1])", "returned 1 values for 2 rows"),
        ("return [1, 2]", "returned list, wanted an arrow array"),
        ("return pa.array([{'a': 1}, {'a': 2}])", "returned struct<a: int64>, wanted an arrow array"),
        ("return 1 / 0", "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_user_function_that_misbehaves_is_named_with_its_field(tmp_path, body, problem):
    plan = user_plan(tmp_path, f"import pyarrow as pa\ndef f(user, item, at_ms):\n    {body}\n")
    with pytest.raises(ModelError, match=f"field f: model:f {problem}"):
        keys_of(plan, "f", BATCH)


def test_user_function_that_does_not_exist_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(ModelError, match=r"model.py, which does not exist"):
        load_function(tmp_path, "model:f")
    write_model(tmp_path, "x = 1")
    with pytest.raises(ModelError, match="defines no function f, wanted by model:f"):
        load_function(tmp_path, "model:f")
    with pytest.raises(ModelError, match="'model' is not the name of a function"):
        load_function(tmp_path, "model")


def test_module_that_fails_on_import_is_an_error_with_its_cause(tmp_path):
    write_model(tmp_path, "raise RuntimeError('no licence')")
    with pytest.raises(ModelError, match="RuntimeError: no licence"):
        load_function(tmp_path, "model:f")


def test_two_projects_have_separate_modules_of_one_name(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "names.py").write_text(f"NAME = {name!r}")
        write_model(tmp_path / name, "import names\ndef f(): return names.NAME")
    loaded = [load_function(tmp_path / name, "model:f") for name in ("one", "two")]
    assert [function.call() for function in loaded] == ["one", "two"]


def test_loading_leaves_no_trace_in_the_interpreter(tmp_path):
    import sys

    path, modules = list(sys.path), set(sys.modules)
    write_model(tmp_path, "def f(): return 1")
    load_function(tmp_path, "model:f")
    assert (sys.path, set(sys.modules)) == (path, modules)
    assert not (tmp_path / "__pycache__").exists()


def test_identities_change_with_the_users_code_and_what_it_imports(tmp_path):
    (tmp_path / "part.py").write_text("SIZE = 1")
    source = "import part\ndef f(user, item, at_ms): return user"
    before = user_plan(tmp_path, source).identities()
    assert user_plan(tmp_path, source).identities() == before
    (tmp_path / "part.py").write_text("SIZE = 2")
    after = user_plan(tmp_path, source).identities()
    assert after != before
    assert user_plan(tmp_path, source + "\n").identities() != after


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "p", "columns": ["price"], "transform": "bucket", "boundaries": [1, 6]},
        {"name": "p", "columns": ["price"], "transform": "log2"},
        {"name": "q", "columns": ["price"], "transform": "bucket", "boundaries": [1, 5]},
        {"name": "p", "columns": ["user"], "transform": "bucket", "boundaries": [1, 5]},
    ],
)
def test_identities_change_with_whatever_changes_keys(tmp_path, changed):
    field = {"name": "p", "columns": ["price"], "transform": "bucket", "boundaries": [1, 5]}
    assert plan_of(tmp_path, field).identities() != plan_of(tmp_path, changed).identities()
    assert plan_of(tmp_path, field).identities() == plan_of(tmp_path, {**field, "dim": 3}).identities()


# Instances and the operator.


def test_instances_have_the_features_of_the_same_rows_in_training(tmp_path):
    fields = [USER, {"name": "tags", "columns": ["tags"]}, {"name": "h", "columns": ["at"], "transform": "hour"}]
    plan = plan_of(tmp_path, *fields, dense=[{"name": "d", "column": "price"}])
    instances = [{"user": 7, "tags": ["a", "b"], "price": 3}, {"user": None, "at": 5 * HOUR_MS, "price": 0.5}]
    batch, at_ms = plan.batch_of(instances, now_ms=2 * HOUR_MS)
    served = plan.extract(batch, at_ms)
    raw = pa.record_batch({"user": pa.array([7, None]), "tags": pa.array([["a", "b"], None]), "price": [3.0, 0.5]})
    trained = plan.extract(raw, np.array([2 * HOUR_MS, 5 * HOUR_MS]))
    for field in trained.keys:
        assert served.keys[field].keys.tolist() == trained.keys[field].keys.tolist()
        assert served.keys[field].offsets.tolist() == trained.keys[field].offsets.tolist()
    assert served.dense.tolist() == trained.dense.tolist()


@pytest.mark.parametrize(
    ("instance", "problem"),
    [
        (3, "instance 1 is 3, wanted an object of columns"),
        ({"usr": 3}, "instance 1 has column usr, which impressions do not have. known: id, user"),
        ({"user": "three"}, "instance 1, column user: got 'three', wanted int"),
        ({"user": "9223372036854775808"}, "instance 1, column user: got '9223372036854775808', wanted int"),
        ({"user": 3.0}, "instance 1, column user: got 3.0, wanted int"),
        ({"user": True}, "instance 1, column user: got True, wanted int"),
        ({"user": 2**63}, "instance 1, column user: got 9223372036854775808, wanted int"),
        ({"premium": 1}, "instance 1, column premium: got 1, wanted bool"),
        ({"price": "1"}, "instance 1, column price: got '1', wanted float"),
        ({"tags": "a"}, "instance 1, column tags: got 'a', wanted strings"),
        ({"tags": ["a", 1]}, "instance 1, column tags: got ['a', 1], wanted strings"),
        ({"item": "\ud800"}, "instance 1, column item: got '\\ud800', wanted string"),
        ({"at": "noon"}, "instance 1, column at: got 'noon', wanted ms since 1970"),
        ({"at": 1.5}, "instance 1, column at: got 1.5, wanted ms since 1970"),
    ],
)
def test_instance_of_the_wrong_form_is_refused_by_number_and_column(tmp_path, instance, problem):
    with pytest.raises(InputError) as refusal:
        plan_of(tmp_path, USER).batch_of([{"user": 1}, instance], now_ms=0)
    assert problem in str(refusal.value)


def test_key_of_a_typed_value_is_the_key_training_uses(tmp_path):
    fields = [
        USER,
        {"name": "tags", "columns": ["tags"]},
        {"name": "x", "columns": ["user", "item"], "transform": "cross"},
        {"name": "h", "columns": ["at"], "transform": "hour"},
        {"name": "w", "columns": ["at"], "transform": "weekday"},
        {"name": "p", "columns": ["price"], "transform": "bucket", "boundaries": [1, 5]},
    ]
    plan = plan_of(tmp_path, *fields)
    row = {"user": 7, "item": "a", "tags": ["red"], "price": 2, "at": "1970-01-05T13:30:00Z"}
    keys = {name: field.keys[0] for name, field in plan.extract(*plan.batch_of([row], 0)).keys.items()}
    assert plan.key_of("user", {"user": "7"}) == keys["user"]
    assert plan.key_of("tags", {"tags": "red"}) == keys["tags"]
    assert plan.key_of("x", {"item": "a", "user": "7"}) == keys["x"]
    assert plan.key_of("h", {"at": "13"}) == plan.key_of("h", {"at": "2020-02-02T13:59"}) == keys["h"]
    assert plan.key_of("w", {"at": "mon"}) == keys["w"]
    assert plan.key_of("p", {"price": "2"}) == keys["p"]


def test_key_of_refuses_what_it_cannot_read(tmp_path):
    plan = plan_of(tmp_path, USER)
    with pytest.raises(InputError, match=r"field usr does not exist\. known: user"):
        plan.key_of("usr", {"user": "7"})
    with pytest.raises(InputError, match=r"field user does not read item\. hint: it reads user"):
        plan.key_of("user", {"item": "a"})
    with pytest.raises(InputError, match="column user: got 'x', wanted int"):
        plan.key_of("user", {"user": "x"})


def test_descriptions_are_the_values_of_each_key(tmp_path):
    fields = [
        {"name": "tags", "columns": ["tags"]},
        {"name": "x", "columns": ["user", "item"], "transform": "cross"},
        {"name": "w", "columns": ["at"], "transform": "weekday"},
        {"name": "p", "columns": ["price"], "transform": "bucket", "boundaries": [1, 5]},
        {"name": "l", "columns": ["user"], "transform": "log2"},
    ]
    plan = plan_of(tmp_path, *fields)
    rows = [{"tags": ["a", "b"], "user": 7, "price": 5}, {"tags": ["c"], "item": "i"}]
    batch, at_ms = plan.batch_of(rows, 0)
    both = np.array([0, 1])
    assert plan.describe("tags", batch, at_ms, np.array([2, 0])).to_pylist() == ["c", "a"]
    assert plan.describe("x", batch, at_ms, both).to_pylist() == ["7 × (missing)", "(missing) × i"]
    assert plan.describe("w", batch, at_ms, both).to_pylist() == ["Thu", "Thu"]
    assert plan.describe("p", batch, at_ms, both).to_pylist() == ["(1, 5]", "(missing)"]
    assert plan.describe("l", batch, at_ms, both).to_pylist() == ["[7, 15)", "(missing)"]


def shared(root: Path, *fields: dict) -> FeaturePlan:
    document = [{**field, "table": "things"} for field in fields]
    events = {"key": ["id"], "impressions": {"columns": COLUMNS}, "clicks": {"columns": {"id": "string"}}}
    return FeaturePlan(parse_config({"events": events, "tables": [{"name": "things"}], "fields": document}), root)


def test_a_value_has_the_same_key_in_all_fields_of_a_table(tmp_path):
    plan = shared(tmp_path, {"name": "item", "columns": ["item"]}, {"name": "tags", "columns": ["tags"]})
    batch = pa.record_batch({"item": pa.array(["a", None]), "tags": pa.array([["b", "a"], None])})
    item, tags = keys_of(plan, "item", batch), keys_of(plan, "tags", batch)
    assert item.tolist() == hash_column(pa.array(["a", None]), seed_of("things")).tolist()
    assert tags.tolist() == hash_column(pa.array(["b", "a"]), seed_of("things")).tolist()
    assert item[0] == tags[1]
    assert plan.key_of("tags", {"tags": "a"}) == plan.key_of("item", {"item": "a"}) == item[0]
    assert plan.fields_by_table == {"things": ("item", "tags")}


def test_fields_of_a_table_that_read_different_values_are_refused(tmp_path):
    user, sizes = {"name": "user", "columns": ["user"]}, {"name": "sizes", "columns": ["sizes"]}
    item, price = {"name": "item", "columns": ["item"]}, {"name": "price", "columns": ["price"]}
    assert shared(tmp_path, user, sizes)
    mixed = "fields of table things read different values: user reads int, item reads string. hint: use a table for"
    with pytest.raises(ConfigError, match=mixed):
        shared(tmp_path, user, item)
    for number in (price, {"name": "flag", "columns": ["premium"]}, {**price, "transform": "log2"}):
        with pytest.raises(ConfigError, match="read different values"):
            shared(tmp_path, user, number)
    bucket = {**price, "transform": "bucket", "boundaries": [1, 5]}
    with pytest.raises(ConfigError, match="price reads buckets of 1, 5, other reads buckets of 1, 6"):
        shared(tmp_path, bucket, {**bucket, "name": "other", "boundaries": [1, 6]})
    cross = {"name": "pair", "columns": ["user", "item"], "transform": "cross"}
    with pytest.raises(ConfigError, match="pair reads crosses of int × string, turned reads crosses of string × int"):
        shared(tmp_path, cross, {**cross, "name": "turned", "columns": ["item", "user"]})


def test_a_users_function_may_share_a_table(tmp_path):
    (tmp_path / "own.py").write_text("def lower(items, at_ms):\n    return items\n")
    own = {"name": "own", "columns": ["item"], "transform": "own:lower"}
    plan = shared(tmp_path, own, {"name": "item", "columns": ["item"]})
    batch = pa.record_batch({"item": ["a"]})
    assert keys_of(plan, "own", batch).tolist() == keys_of(plan, "item", batch).tolist()


def test_the_identity_of_a_field_depends_on_the_name_of_its_table(tmp_path):
    item = {"name": "item", "columns": ["item"]}
    own = plan_of(tmp_path, item).identities()["item"]
    assert shared(tmp_path, item).identities()["item"] != own
    assert shared(tmp_path, {**item, "name": "things"}).identities()["things"] == own
