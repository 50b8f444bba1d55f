"""Dense inputs: vectors, normalisation, clipping; what their statistics are, and bad settings."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.model.fields import DenseConfig
from pipeline.errors import ConfigError, InputError
from pipeline.features.dense import SizeError, dense_numbers, out_of_range
from pipeline.features.plan import FeaturePlan
from pipeline.features.scaling import DenseScaling
from pipeline.model.network.layout import Layout

PLACE = {"name": "place", "column": "place", "size": 2}
PRICE = {"name": "price", "column": "price"}


def config_of(*dense: dict):
    columns = {"id": "int", "price": "float", "place": "floats", "tags": "strings"}
    return parse_config(
        {
            "events": {"key": ["id"], "impressions": {"columns": columns}, "clicks": {"columns": {"id": "int"}}},
            "fields": [{"name": "user", "columns": ["id"], "dim": 3}],
            "dense": list(dense),
        }
    )


def scaling_of(*dense: dict) -> DenseScaling:
    return DenseScaling([DenseConfig(**each) for each in dense])


def applied(scaling: DenseScaling, numbers: np.ndarray) -> np.ndarray:
    out = numbers.copy()
    scaling.apply(out)
    return out


# Vectors.


def test_vector_takes_its_size_in_columns():
    layout = Layout.of(config_of(PLACE, PRICE))
    assert (layout.names, layout.widths) == (("user", "place", "price"), (3, 2, 1))
    batch = pa.RecordBatch.from_pylist(
        [
            {"id": 1, "price": 5.0, "place": [1.0, 2.0]},
            {"id": 2, "price": None},
            {"id": 3, "place": [None, 4]},
        ]
    )
    found = FeaturePlan(config_of(PLACE, PRICE), None).extract(batch, np.zeros(3, np.int64)).dense
    assert found.tolist() == [[1, 2, 5], [0, 0, 0], [0, 4, 0]]
    assert found.dtype == np.float32


@pytest.mark.parametrize("vector", [[], [1.0], [1.0, 2.0, 3.0]])
def test_vector_of_another_size_names_row_and_column(vector):
    place, column = DenseConfig(**PLACE), pa.array([[1.0, 2.0], vector])
    with pytest.raises(SizeError, match=rf"column place: got {len(vector)} numbers, dense place has size 2") as at:
        dense_numbers(place, column)
    assert at.value.row == 1
    assert out_of_range(place, column).tolist() == [False, True]


def test_every_number_of_a_vector_is_checked():
    place = DenseConfig(**PLACE, range=(0, 10))
    column = pa.array([[1.0, 10.0], None, [11.0, 1.0], [1.0, float("nan")], [None, -1.0], [3.0]])
    assert out_of_range(place, column).tolist() == [False, False, True, True, True, True]


def test_instance_with_a_vector_of_another_size_is_refused_by_its_number():
    plan = FeaturePlan(config_of(PLACE), None)
    with pytest.raises(InputError, match="instance 8, column place: got 3 numbers, dense place has size 2"):
        plan.batch_of([{"place": [1.0, 2.0]}, {"place": [1.0, 2.0, 3.0]}], 0, first=7)


# Statistics.


def test_normalised_input_has_mean_and_deviation_of_the_samples_before():
    scaling, random = scaling_of(PRICE | {"normalise": True}), np.random.default_rng(1)
    x = random.normal(50, 7, (900, 1)).astype(np.float32)
    for start in range(0, 900, 100):
        scaling.learn(x[start : start + 100])
    expected = (x.astype(np.float64) - x.mean(dtype=np.float64)) / x.std(dtype=np.float64)
    np.testing.assert_allclose(applied(scaling, x), expected, rtol=1e-5, atol=1e-6)


def test_each_number_of_a_vector_has_statistics_of_its_own_and_other_inputs_stay():
    scaling = scaling_of(PRICE, PLACE | {"normalise": True})
    scaling.learn(np.float32([[1, 0, 100], [1, 2, 300]]))
    assert applied(scaling, np.float32([[7, 2, 100]])).tolist() == [[7, 1, -1]]


def test_before_the_first_sample_and_with_one_value_only_it_is_zero():
    scaling = scaling_of(PRICE | {"normalise": True})
    x = np.full((3, 1), 0.1, np.float32)
    assert applied(scaling, x).tolist() == [[0]] * 3
    for _ in range(5):
        scaling.learn(x)
    assert applied(scaling, x + 1).tolist() == [[0]] * 3


def test_order_is_log1p_then_normalise_then_clip():
    price = PRICE | {"transform": "log1p", "normalise": True, "clip": [-1.0, 0.5]}
    scaling = scaling_of(price)
    logs = dense_numbers(DenseConfig(**price), pa.array([0.0, np.e - 1, np.e**2 - 1]))
    scaling.learn(logs)
    np.testing.assert_allclose(applied(scaling, logs)[:, 0], [-1.0, 0.0, 0.5], atol=1e-6)


def test_clip_alone_needs_no_statistics():
    scaling = scaling_of(PRICE | {"clip": [0.0, 10.0]}, PLACE)
    assert applied(scaling, np.float32([[-3, -3, 90], [12, 0, 0]])).tolist() == [[0, -3, 90], [10, 0, 0]]
    assert scaling.arrays() == {}


def test_number_that_is_not_finite_stays_so():
    scaling = scaling_of(PRICE | {"normalise": True})
    scaling.learn(np.float32([[1], [2]]))
    assert not np.isfinite(applied(scaling, np.float32([[np.nan], [np.inf]]))).any()


def test_restored_statistics_continue_to_the_bit():
    dense = [PRICE | {"normalise": True}, PLACE | {"normalise": True}]
    straight, random = scaling_of(*dense), np.random.default_rng(2)
    broken = scaling_of(*dense)
    for _ in range(5):
        batch = random.normal(3, 2, (7, 3)).astype(np.float32)
        straight.learn(batch)
        broken.learn(batch)
        stored = broken.arrays()
        broken = scaling_of(*dense)
        broken.load(stored)
    assert applied(broken, batch).tobytes() == applied(straight, batch).tobytes()


# Settings.


@pytest.mark.parametrize(
    ("dense", "problem"),
    [
        (PLACE | {"size": 0}, "dense.0.size: .* greater than or equal to 1"),
        (PRICE | {"clip": [1.0, 1.0]}, "dense price has clip 1 to 1. hint: the smaller value comes first"),
        (PRICE | {"normalise": "yes please"}, "dense.0.normalise: .* valid boolean"),
    ],
)
def test_bad_settings_are_refused(dense, problem):
    with pytest.raises(ConfigError, match=problem):
        config_of(dense)


@pytest.mark.parametrize(
    ("dense", "problem"),
    [
        ({"name": "place", "column": "place"}, "dense place reads column place of type floats. hint: set its size"),
        (PRICE | {"size": 3}, "dense price has a size and reads column price of type float, wanted floats"),
        ({"name": "tags", "column": "tags", "size": 2}, "reads column tags of type strings, wanted floats"),
    ],
)
def test_size_belongs_to_a_column_of_floats_and_the_join_never_sees_another(dense, problem):
    with pytest.raises(ConfigError, match=problem):
        config_of(dense)


def test_settings_change_the_identity_and_defaults_do_not():
    def identity(dense: dict) -> str:
        return FeaturePlan(config_of(dense), None).identities()["price"]

    assert identity(PRICE) == '["dense", "price", "float", "value"]'
    assert len({identity(PRICE | each) for each in ({}, {"normalise": True}, {"clip": [0, 1]})}) == 3
