"""The project written by `springtide init` runs unchanged."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pipeline.cli
from pipeline.configuration.config import load_config
from pipeline.configuration.deployment.services import Cluster, Flink
from pipeline.configuration.streams.logs import Logs
from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel

STARTER = Path(pipeline.cli.__file__).parent / "starter"


def test_the_starter_turns_its_events_into_predictions():
    config = load_config(STARTER / "springtide.toml")
    rows = pa.RecordBatch.from_pydict(
        {"impression_id": ["a", "b"], "user": ["u", "v"], "item": ["i", None], "position": [0, 1]}
    )
    features = FeaturePlan(config, STARTER).extract(rows, np.array([0, 3_600_000]))
    assert {name: len(keys.keys) for name, keys in features.keys.items()} == dict.fromkeys(features.keys, 2)
    model = DenseModel(config, STARTER)
    assert np.allclose(model.predict(np.zeros((2, model.layout.columns), np.float32)), 1 / (1 + np.exp(3)))


@pytest.mark.parametrize(("name", "table"), [("logs", Logs), ("flink", Flink), ("cluster", Cluster)])
def test_every_setting_of_these_tables_is_shown_with_its_default_or_an_example(name, table):
    text = (STARTER / "springtide.toml").read_text(encoding="utf-8")
    shown = tomllib.loads(re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE))[name]
    assert table.model_fields.keys() == shown.keys()
    defaults = {key: field.get_default(call_default_factory=True) for key, field in table.model_fields.items()}
    assert {key: shown[key] for key, value in defaults.items() if value} == {k: v for k, v in defaults.items() if v}
    if table is Logs:
        shown = {key: value for key, value in shown.items() if key != "path"} | {"engine": "kafka"}
    table.model_validate(shown)
