"""Calibration on the market, which has a ground truth: neither policy nor down-sampling biases predictions."""

import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import Market
from pipeline.market.produce import produce
from pipeline.process.clock import SystemClock
from pipeline.samples.run.in_process import run_samples
from pipeline.trainer.run.in_process import run_train

MODEL = """
import keras
from keras import layers

def build(inputs):
    bias = keras.initializers.Constant(-1.5)
    return keras.Model(inputs, layers.Dense(1, bias_initializer=bias)(layers.Concatenate()(list(inputs.values()))))
"""
HOURS = 3
# A market that the model can represent: down-sampling shifts what a model cannot represent (King and Zeng 2001).
MARKET = MarketConfig(
    hours=HOURS, impressions_per_hour=200_000, click_rate=0.15, items=100, taste=0.0, churn=0.0, slow_share=0.0
)


def adagrad(name):
    optimizer = {"kind": "adagrad", "learning_rate": 0.1, "initial_accumulator": 0.1}
    return {"name": name, "columns": [name], "dim": 1, "init_scale": 0, "optimizer": optimizer}


def configuration(policy, rate):
    """A window of a minute, so that a third of all clicks comes after it."""
    columns = {"id": "int", "user": "string", "item": "string", "position": "int"}
    return parse_config(
        {
            "events": {
                "key": ["id"],
                "impressions": {"columns": columns},
                "clicks": {"columns": {"id": "int"}},
            },
            "samples": {"window_s": 60, "horizon_s": 3600, "policy": policy, "negative_rate": rate},
            "fields": [adagrad("item"), adagrad("position")],
            "model": {"batch_size": 512, "learning_rate": 0.05},
            "publish": {"incremental_every_s": None, "full_every_s": None},
            "train": {"commit_every_s": 3600.0},
        }
    )


@pytest.mark.parametrize("rate", [1.0, 0.1])
@pytest.mark.parametrize("policy", ["wait", "fake_negative"])
def test_predictions_are_calibrated_to_the_truth(tmp_path, policy, rate):
    (tmp_path / "model.py").write_text(MODEL)
    project = Project(tmp_path, configuration(policy, rate), SystemClock())
    log = open_log(project)
    hours = produce(log, project, Market(7, MARKET), range(HOURS))
    joined = run_samples(project, log, until_end=True)
    assert joined.samples["compensation"] > 0.3 * sum(hour.truth.clicked.sum() for hour in hours)
    report = run_train(project, log, until_end=True)
    # The first hour is for learning; of the last, some windows are still open.
    second = report.shards[0]["validation"]["label"]["windows"][1]
    predicted = second["calibration"] * second["positives"]
    assert predicted == pytest.approx(hours[1].truth.probability.sum(), rel=0.01)
