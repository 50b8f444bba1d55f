"""What `freshet init` writes runs as it is."""

from pathlib import Path

import numpy as np
import pyarrow as pa

import pipeline.cli
from pipeline.features.plan import FeaturePlan
from pipeline.ground.config import load_config
from pipeline.model.dense import DenseModel

STARTER = Path(pipeline.cli.__file__).parent / "starter"


def test_the_starter_turns_its_events_into_predictions():
    config = load_config(STARTER / "freshet.toml")
    rows = pa.RecordBatch.from_pydict(
        {"impression_id": ["a", "b"], "user": ["u", "v"], "item": ["i", None], "position": [0, 1]}
    )
    features = FeaturePlan(config, STARTER).extract(rows, np.array([0, 3_600_000]))
    assert {name: len(keys.keys) for name, keys in features.keys.items()} == dict.fromkeys(features.keys, 2)
    model = DenseModel(config, STARTER)
    assert np.allclose(model.predict(np.zeros((2, model.layout.columns), np.float32)), 1 / (1 + np.exp(3)))
