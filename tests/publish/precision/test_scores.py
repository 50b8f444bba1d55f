"""Scores of serving compared with the trainer's."""

import numpy as np
import pytest

from pipeline.publish.precision.scores import calibration_by_decile, divergence, entropy, ks_distance, sigmoid


def test_the_distance_is_the_largest_gap_of_the_distributions_also_with_ties():
    random = np.random.default_rng(1)
    own, served = random.integers(0, 9, 300) / 9, random.integers(0, 9, 200) / 9
    gaps = [abs(float(np.mean(own <= score)) - float(np.mean(served <= score))) for score in np.arange(9) / 9]
    assert ks_distance(own, served) == pytest.approx(max(gaps))


def test_divergence_is_what_the_log_loss_of_serving_exceeds_the_entropy_by():
    own, served = np.random.default_rng(1).normal(0, 3, (2, 500))
    p, q = sigmoid(own), sigmoid(served)
    loss = -p * np.log(q) - (1 - p) * np.log(1 - q)
    assert divergence(own, served) == pytest.approx(loss - entropy(own), abs=1e-9)
    assert divergence(own, own) == pytest.approx(np.zeros(500))


def test_every_sample_is_in_one_decile_of_the_trainers_score():
    own = np.random.default_rng(1).uniform(0.01, 1, 105)
    served = np.where(own > np.quantile(own, 0.5), 2 * own, own)
    ratios = calibration_by_decile(own, served)
    assert len(ratios) == 10
    assert ratios[:4] == pytest.approx([1] * 4)
    assert ratios[6:] == pytest.approx([2] * 4)


def test_fewer_samples_than_deciles_give_one_ratio_each():
    assert calibration_by_decile(np.array([0.5, 0.25]), np.array([0.5, 0.5])) == [2.0, 1.0]
