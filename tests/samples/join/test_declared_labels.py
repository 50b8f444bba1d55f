"""Labels declared in `[[labels]]`: which clicks the join refuses, and the columns of its samples."""

import pyarrow as pa
import pytest

from pipeline.configuration.config import Config, parse_config
from pipeline.logs.events.sample_block import sample_schema
from pipeline.samples.join.ranges import Ranges


def config_of(label: dict) -> Config:
    return parse_config(
        {
            "events": {
                "key": ["id"],
                "impressions": {"columns": {"id": "int", "place": "floats"}},
                "clicks": {"columns": {"id": "int", "watch": "float"}},
            },
            "labels": [{"name": "label"}, {"name": "watch", **label}],
            "fields": [{"name": "user", "columns": ["id"]}],
            "dense": [{"name": "place", "column": "place", "size": 2}],
        }
    )


@pytest.mark.parametrize(
    ("label", "refused"),
    [
        ({"loss": "logistic"}, [False, True, True, True, True, False]),
        ({"loss": "poisson"}, [False, False, True, True, True, False]),
        ({"loss": "squared"}, [False, False, False, True, True, False]),
        ({"loss": "huber", "range": (-2, 1)}, [False, True, False, True, True, False]),
        ({"loss": "model:own"}, [False, False, False, True, True, False]),
    ],
)
def test_click_with_a_value_that_the_loss_does_not_allow_is_refused(label, refused):
    watch = [0.5, 7.0, -1.0, float("nan"), 1e300, None]
    columns = pa.RecordBatch.from_pydict({"id": pa.array(range(6)), "watch": pa.array(watch, pa.float64())})
    config = config_of(label)
    assert Ranges(config).clicks(config.feedbacks[0], columns).tolist() == refused


def test_impression_with_a_vector_of_another_size_is_refused():
    columns = pa.RecordBatch.from_pydict({"id": pa.array([1, 2, 3]), "place": pa.array([[1.0, 2.0], [1.0], None])})
    [(reason, wrong)] = Ranges(config_of({})).impressions(columns, pa.array([0, 0, 0]).to_numpy())
    assert (reason, wrong.tolist()) == ("number_out_of_range", [False, True, False])


def test_samples_have_a_column_for_each_declared_label():
    schema = sample_schema(config_of({"loss": "poisson"}))
    assert [schema.field(name).type for name in ("label", "watch")] == [pa.float32()] * 2
