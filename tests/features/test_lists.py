"""Lists in the feature plan: truncation before anything else sees a key, and weights of elements."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.arrays.keys import hash_bytes, hash_column
from pipeline.configuration.config import parse_config
from pipeline.errors import InputError
from pipeline.features.plan import FeaturePlan, Features
from pipeline.features.weights import WeightsError

COLUMNS = {"id": "string", "tags": "strings", "sizes": "ints", "strengths": "floats", "counts": "uints"}
HISTORY = {"name": "history", "columns": ["tags"], "pooling": "none", "max_length": 2}
MEAN = {"name": "history", "columns": ["tags"], "pooling": "mean", "weights": "strengths"}


def plan_of(root: Path, *fields: dict) -> FeaturePlan:
    events = {"key": ["id"], "impressions": {"columns": COLUMNS}, "clicks": {"columns": {"id": "string"}}}
    return FeaturePlan(parse_config({"events": events, "fields": list(fields)}), root)


def extracted(plan: FeaturePlan, **columns: list) -> Features:
    types = {"tags": pa.list_(pa.string()), "sizes": pa.list_(pa.int64()), "strengths": pa.list_(pa.float64())}
    batch = pa.RecordBatch.from_pydict({name: pa.array(each, types.get(name)) for name, each in columns.items()})
    return plan.extract(batch, np.zeros(batch.num_rows, np.int64))


def keys_of(words: list[str]) -> list[int]:
    return hash_column(pa.array(words), hash_bytes(b"history", 0)).tolist()


TAGS = [["a", "b", "c", "d"], None, ["e"], [], ["f", "g"], ["h", "i", "j"]]


@pytest.mark.parametrize(
    ("keep", "kept"), [("last", ["c", "d", "e", "f", "g", "i", "j"]), ("first", ["a", "b", "e", "f", "g", "h", "i"])]
)
def test_truncated_elements_have_no_keys_and_the_rest_keep_their_order(tmp_path, keep, kept):
    found = extracted(plan_of(tmp_path, HISTORY | {"keep": keep}), tags=TAGS).keys["history"]
    assert found.keys.tolist() == keys_of(kept)
    assert found.offsets.tolist() == [0, 2, 2, 3, 3, 5, 7]


def test_slice_of_truncated_lists_has_the_keys_of_its_own_rows(tmp_path):
    plan = plan_of(tmp_path, HISTORY)
    batch = pa.RecordBatch.from_pydict({"tags": pa.array(TAGS, pa.list_(pa.string()))}).slice(4)
    found = plan.extract(batch, np.zeros(2, np.int64)).keys["history"]
    assert (found.keys.tolist(), found.offsets.tolist()) == (keys_of(["f", "g", "i", "j"]), [0, 2, 4])


def test_users_function_may_return_longer_lists_than_the_model_reads(tmp_path):
    (tmp_path / "model.py").write_text("def same(tags, at_ms):\n    return tags\n")
    plan = plan_of(tmp_path, HISTORY | {"transform": "model:same"})
    assert extracted(plan, tags=TAGS[:1]).keys["history"].keys.tolist() == keys_of(["c", "d"])


def test_descriptions_are_those_of_the_elements_that_are_kept(tmp_path):
    plan = plan_of(tmp_path, HISTORY)
    batch = pa.RecordBatch.from_pydict({"tags": pa.array(TAGS, pa.list_(pa.string()))})
    assert plan.describe("history", batch, np.zeros(6, np.int64), np.arange(7)).to_pylist() == list("cdefgij")


def test_each_element_has_its_weight_and_null_counts_as_one(tmp_path):
    plan = plan_of(tmp_path, MEAN)
    found = extracted(plan, tags=[["a", "b"], ["c", None], None, []], strengths=[[0.5, None], None, None, []])
    assert found.keys["history"].weights.tolist() == [0.5, 1.0, 1.0, 1.0]
    assert extracted(plan, tags=[["a"]]).keys["history"].weights.tolist() == [1.0]  # written before the column was


def test_weights_may_be_whole_numbers_and_any_sign(tmp_path):
    found = extracted(plan_of(tmp_path, MEAN | {"weights": "sizes"}), tags=[["a", "b"]], sizes=[[3, -2]])
    assert found.keys["history"].weights.tolist() == [3.0, -2.0]


@pytest.mark.parametrize("strengths", [[1.0], [1.0, 2.0, 3.0], [], [1.0, 1e39], [np.nan, 1.0], [1.0, -np.inf]])
def test_weights_that_do_not_fit_name_row_and_column(tmp_path, strengths):
    wanted = r"column strengths, weights of history: got \[.*\], wanted 2 finite numbers of 32 bits"
    with pytest.raises(WeightsError, match=wanted) as caught:
        extracted(plan_of(tmp_path, MEAN), tags=[["a"], ["b", "c"]], strengths=[[1.0], strengths])
    assert caught.value.row == 1


def test_weights_of_a_row_without_elements_are_empty_or_refused(tmp_path):
    plan = plan_of(tmp_path, MEAN)
    assert len(extracted(plan, tags=[None], strengths=[[]]).keys["history"].weights) == 0
    with pytest.raises(InputError, match="wanted 0 finite numbers"):
        extracted(plan, tags=[None], strengths=[[1.0]])


def test_features_of_several_requests_are_joined_with_their_weights(tmp_path):
    plan = plan_of(tmp_path, MEAN)
    parts = [extracted(plan, tags=[["a", "b"]], strengths=[[0.5, 2.0]]), extracted(plan, tags=[["c"]])]
    assert Features.concatenated(parts).keys["history"].weights.tolist() == [0.5, 2.0, 1.0]


def test_features_of_some_rows_are_those_of_the_rows_alone(tmp_path):
    plan = plan_of(tmp_path, MEAN)
    tags, strengths = [["a", "b"], [], ["c"], ["d", "e", "f"]], [[0.5, 2.0], [], [3.0], [4.0, 5.0, 6.0]]
    rows = np.array([3, 0, 1, 3], np.int64)
    taken = extracted(plan, tags=tags, strengths=strengths).take(rows)
    alone = extracted(plan, tags=[tags[r] for r in rows], strengths=[strengths[r] for r in rows])
    for part in ("keys", "offsets", "weights"):
        assert getattr(taken.keys["history"], part).tolist() == getattr(alone.keys["history"], part).tolist()
    assert taken.dense.tolist() == alone.dense.tolist()


def test_columns_that_are_read_include_weights(tmp_path):
    assert plan_of(tmp_path, MEAN).columns == ("tags", "strengths")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        (HISTORY, {"max_length": 3}),
        (HISTORY, {"keep": "first"}),
        (MEAN, {"weights": "sizes"}),
        (MEAN, {"weights": None}),
    ],
)
def test_identities_change_with_truncation_and_weights(tmp_path, field, changes):
    assert plan_of(tmp_path, field).identities() != plan_of(tmp_path, field | changes).identities()


def test_identity_of_a_field_without_them_is_that_of_versions_written_before(tmp_path):
    plain = {"name": "history", "columns": ["tags"], "pooling": "mean"}
    assert plan_of(tmp_path, plain).identities() == {"history": '["value", ["tags"], ["strings"], [], null]'}
