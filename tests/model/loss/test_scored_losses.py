"""Losses of changed inputs are those of progressive validation, for every kind of label."""

import numpy as np
import pytest

from pipeline.configuration.model.labels import LabelConfig
from pipeline.model.loss.late_odds import logits_of_odds
from pipeline.model.loss.losses import losses_of, scored_losses
from pipeline.model.loss.targets import Targets
from pipeline.trainer.validation.binary_scores import binary_scores

N = 200


def targets(values: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Targets:
    """Of one label; what the step would learn from is none of these losses."""
    wrong, none = np.full((N, 1), np.nan, np.float32), np.full(N, np.nan, np.float32)
    columns = [each.astype(np.float32)[:, None] for each in (positive, negative, values, np.zeros(N))]
    return Targets(wrong, wrong, none, none, *columns, np.ones((N, 1), bool))


@pytest.mark.parametrize("correction", ["reversal", "calibration"])
def test_a_logistic_label_has_the_log_loss_of_what_is_served(tmp_path, correction):
    random = np.random.default_rng(1)
    label = LabelConfig(name="click", correction=correction, weight=3.0)
    outputs, positive = random.normal(-2, 1, N).astype(np.float32), (random.random(N) < 0.3).astype(np.float64)
    negative = 1 - positive - (random.random(N) < 0.1)
    found = scored_losses(losses_of([label], tmp_path), outputs[:, None], targets(np.ones(N), positive, negative))
    z = outputs.astype(np.float64) if correction == "reversal" else logits_of_odds(outputs.astype(np.float64))
    np.testing.assert_allclose(found.numpy()[:, 0], binary_scores(z, positive, negative).terms[2], rtol=2e-4, atol=1e-5)


def test_another_label_has_its_loss_minus_that_of_the_value_it_reverses(tmp_path):
    random = np.random.default_rng(2)
    outputs, values = random.normal(1, 1, (2, N))
    reverses = (random.random(N) < 0.2).astype(np.float64)
    losses = losses_of([LabelConfig(name="watched", loss="squared")], tmp_path)
    found = scored_losses(losses, outputs.astype(np.float32)[:, None], targets(values, np.ones(N), -reverses))
    wanted = (outputs - values) ** 2 - reverses * outputs**2
    np.testing.assert_allclose(found.numpy()[:, 0], wanted, rtol=1e-4, atol=1e-5)
