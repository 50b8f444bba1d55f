"""Progressive validation against references written out in NumPy."""

import json

import numpy as np
import pytest

from pipeline.errors import DamagedError
from pipeline.trainer.validation.binary_scores import binary_scores
from pipeline.trainer.validation.label_validation import HOUR_MS, HOURS, LabelValidation, labels_without_positive

RNG_SEED = 5


def stream(n: int = 4_000, seed: int = RNG_SEED):
    """Logits, labels and weights of n samples, ten minutes of log time apart in blocks."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-2, 1, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    logits = (truth + rng.normal(0, 0.5, n)).astype(np.float32)
    return logits, labels, rng.uniform(0.5, 2, n).astype(np.float32)


def exact_auc(logits, positive, negative) -> float:
    """By every pair."""
    above = (logits[:, None] > logits[None, :]) + 0.5 * (logits[:, None] == logits[None, :])
    return float(positive @ above @ negative / (positive.sum() * negative.sum()))


def scored(logits, positive, negative, at_ms=None) -> dict:
    progress = LabelValidation()
    times = np.zeros(len(logits), np.int64) if at_ms is None else np.asarray(at_ms, np.int64)
    progress.score(binary_scores(np.asarray(logits), np.asarray(positive), np.asarray(negative)), times)
    return progress.report()


def test_metrics_equal_their_definitions():
    logits, labels, weight = stream()
    total = scored(logits, weight * labels, weight * (1 - labels))["total"]
    z, w = logits.astype(np.float64), weight.astype(np.float64)
    p = 1 / (1 + np.exp(-z))
    loss = -np.average(np.where(labels == 1, np.log(p), np.log(1 - p)), weights=w)
    rate = np.average(labels, weights=w)
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert total["samples"] == len(logits)
    assert total["log_loss"] == pytest.approx(loss, rel=1e-6)
    assert total["normalized_entropy"] == pytest.approx(loss / entropy, rel=1e-6)
    assert total["calibration"] == pytest.approx((w @ p) / (w @ labels), rel=1e-6)


def test_auc_is_within_a_thousandth_of_that_by_every_pair():
    logits, labels, weight = stream()
    total = scored(logits, weight * labels, weight * (1 - labels))["total"]
    assert total["auc"] == pytest.approx(exact_auc(logits, weight * labels, weight * (1 - labels)), abs=1e-4)


def test_auc_of_a_perfect_order_is_one_and_of_ties_a_half():
    assert scored([3.0, -3.0], [1, 0], [0, 1])["total"]["auc"] == 1.0
    assert scored([-3.0, 3.0], [1, 0], [0, 1])["total"]["auc"] == 0.0
    assert scored([2.0, 2.0], [1, 0], [0, 1])["total"]["auc"] == 0.5


def test_logits_far_outside_still_count():
    total = scored([500.0, -500.0], [1, 0], [0, 1])["total"]
    assert total["auc"] == 1.0
    assert total["log_loss"] == pytest.approx(0.0)
    assert scored([500.0], [0], [1])["total"]["log_loss"] == pytest.approx(500.0)


def test_predicting_the_mean_has_a_normalized_entropy_of_one():
    logits = np.full(10, np.log(0.2 / 0.8))
    labels = np.array([1, 1] + [0] * 8, float)
    total = scored(logits, labels, 1 - labels)["total"]
    assert total["normalized_entropy"] == pytest.approx(1.0)
    assert total["calibration"] == pytest.approx(1.0)


def test_values_that_are_not_defined_are_none():
    assert LabelValidation().report()["total"]["log_loss"] is None
    only_negatives = scored([0.0], [0], [1])["total"]
    assert only_negatives["log_loss"] == pytest.approx(np.log(2))
    assert (only_negatives["normalized_entropy"], only_negatives["auc"], only_negatives["calibration"]) == (None,) * 3


def test_compensation_reverses_its_fake_negative():
    logits, labels, _ = stream(500)
    corrected = scored([*logits, 0.3, 0.3], [*labels, 0, 1], [*(1 - labels), 1, -1])["total"]
    plain = scored([*logits, 0.3], [*labels, 1], [*(1 - labels), 0])["total"]
    for name in ("log_loss", "normalized_entropy", "calibration", "auc", "negatives"):
        assert corrected[name] == pytest.approx(plain[name])


def test_negatives_sampled_at_a_rate_represent_all():
    logits, labels, _ = stream(20_000)
    kept = (labels == 1) | (np.random.default_rng(1).random(len(labels)) < 0.1)
    sampled = scored(logits[kept], labels[kept], 10 * (1 - labels[kept]))["total"]
    full = scored(logits, labels, 1 - labels)["total"]
    assert sampled["normalized_entropy"] == pytest.approx(full["normalized_entropy"], rel=0.05)
    assert sampled["calibration"] == pytest.approx(full["calibration"], rel=0.05)


def test_samples_count_in_the_hour_the_log_has_reached():
    times = [10, HOUR_MS - 1, HOUR_MS, 20, 3 * HOUR_MS]  # the fourth is of the first hour, but came later
    report = scored(np.zeros(5), np.ones(5), np.ones(5), times)
    found = [(w["start_ms"], w["samples"]) for w in report["windows"]]
    assert found == [(0, 2), (HOUR_MS, 2), (3 * HOUR_MS, 1)]
    assert report["total"]["samples"] == 5


def test_closed_window_retains_its_metrics():
    logits, labels, _ = stream(1_000)
    times = np.repeat([0, HOUR_MS], 500)
    first = scored(logits, labels, 1 - labels, times)["windows"][0]
    alone = scored(logits[:500], labels[:500], 1 - labels[:500])["total"]
    assert {name: first[name] for name in alone} == alone


def test_only_the_last_windows_are_retained():
    times = np.arange(HOURS + 10) * HOUR_MS
    ones = np.ones(len(times))
    windows = scored(ones, ones, ones, times)["windows"]
    assert len(windows) == HOURS + 1  # the closed ones and the open one
    assert windows[-1]["start_ms"] == times[-1]


def test_restored_validation_continues_to_the_last_bit():
    logits, labels, weight = stream(3_000)
    times = np.arange(3_000) * 5_000
    straight, broken = LabelValidation(), LabelValidation()
    for start in range(0, 3_000, 300):
        part = slice(start, start + 300)
        scores = binary_scores(logits[part], weight[part] * labels[part], weight[part] * (1 - labels[part]))
        straight.score(scores, times[part])
        broken.score(scores, times[part])
        broken = LabelValidation.from_bytes(broken.to_bytes())
    assert broken.to_bytes() == straight.to_bytes()
    assert broken.report() == straight.report()
    assert LabelValidation.restore(json.loads(json.dumps(straight.state()))).report() == straight.report()


def test_empty_batch_changes_nothing():
    progress = LabelValidation()
    progress.score(binary_scores(*[np.empty(0)] * 3), np.empty(0, np.int64))
    assert progress.to_bytes() == LabelValidation().to_bytes()


def test_damaged_state_is_refused():
    with pytest.raises(DamagedError, match="validation state of 3 bytes is not JSON"):
        LabelValidation.from_bytes(b"{..")
    with pytest.raises(DamagedError, match="validation state has format 9"):
        LabelValidation.restore({"format": 9})


@pytest.mark.parametrize(
    ("samples", "positives", "after", "found"),
    [(10, 0.0, 10, ["bought"]), (9, 0.0, 10, []), (10, 0.5, 10, []), (10, 0.0, None, [])],
)
def test_label_without_a_positive_is_found_once_it_has_had_enough_samples(samples, positives, after, found):
    reports = {
        "label": {"total": {"samples": 10, "positives": 3.0}},
        "bought": {"total": {"samples": samples, "positives": positives}},
    }
    assert labels_without_positive(reports, after) == found
