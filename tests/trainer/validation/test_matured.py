"""Progressive validation on matured labels against a reference that sees every impression with all of its events."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.configuration.streams.events import EventColumns
from pipeline.configuration.streams.feedbacks import Feedback
from pipeline.errors import DamagedError
from pipeline.trainer.validation.binary_scores import BinarySums, binary_scores
from pipeline.trainer.validation.label_ages import LabelAges
from pipeline.trainer.validation.matured import COHORTS, LabelEvents, MaturedLabels
from pipeline.trainer.validation.numeric_scores import NumericBatch, numeric_scores

WINDOW_MS, HORIZON_MS = 60_000, 540_000
AGES = LabelAges(WINDOW_MS + HORIZON_MS, 60_000, (10_000, WINDOW_MS, 300_000))
N = 3_000
NEVER = 10**12


@dataclass(frozen=True)
class World:
    """Impressions in order of time with the model's logits, and the age of their event."""

    at_ms: np.ndarray
    logits: np.ndarray
    age_ms: np.ndarray


@pytest.fixture(scope="module")
def world():
    random = np.random.default_rng(3)
    logits = random.normal(-1.5, 1, N)
    happens = random.random(N) < 1 / (1 + np.exp(-logits))
    age_ms = np.where(happens, random.exponential(90_000, N).astype(np.int64), NEVER)
    return World(np.arange(N) * 1_000, logits, np.where(age_ms < WINDOW_MS + HORIZON_MS, age_ms, NEVER))


def samples_of(world, window_ms):
    """(decision time, impression, kind) of every sample, in order; with a window of 0 the negatives are fake."""
    decided = []
    for i, (at, age) in enumerate(zip(world.at_ms, world.age_ms, strict=True)):
        if age < window_ms:
            decided.append((at + age, i, "positive"))
            continue
        decided.append((at + window_ms, i, "negative"))
        if age != NEVER:
            decided.append((at + age, i, "compensation"))
    return sorted(decided)


def fed(matured, world, samples, batch=100):
    """Score the samples in batches; log time is that of impressions and events, as in the log."""
    log_ms = 0
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        i, kinds = np.array([s[1] for s in part]), np.array([s[2] for s in part])
        age_ms = np.where(kinds == "negative", -1, world.age_ms[i])
        log_ms = max(log_ms, int((world.at_ms[i] + np.maximum(age_ms, 0)).max()))
        positive = (kinds != "negative").astype(float)
        negative = np.select([kinds == "negative", kinds == "compensation"], [1.0, -1.0], 0.0)
        scores = binary_scores(world.logits[i], positive, negative)
        matured.score(scores, LabelEvents(world.at_ms[i], age_ms, kinds == "compensation"), log_ms)
    return log_ms


def reference(world, final, by_ms):
    """The metrics of the impressions `final` with labels as of an age."""
    y = (world.age_ms[final] < by_ms).astype(float)
    sums = BinarySums()
    sums.add(binary_scores(world.logits[final], y, 1 - y))
    return sums.metrics()


def same(found, wanted):
    for name in ("positives", "negatives", "log_loss", "normalized_entropy", "calibration"):
        assert found[name] == pytest.approx(getattr(wanted, name)), name


@pytest.mark.parametrize("window_ms", [WINDOW_MS, 0])
def test_matured_labels_are_those_of_impressions_that_no_event_can_change(world, window_ms):
    matured = MaturedLabels("logistic", AGES)
    log_ms = fed(matured, world, samples_of(world, window_ms))
    final = (world.at_ms // AGES.cohort_ms + 1) * AGES.cohort_ms + AGES.final_ms <= log_ms
    assert 0.7 * N < final.sum() < N
    same(matured.report()["total"], reference(world, final, NEVER))


@pytest.mark.parametrize("window_ms", [WINDOW_MS, 0])
def test_labels_of_an_age_ignore_events_that_came_at_it_or_later(world, window_ms):
    matured = MaturedLabels("logistic", AGES)
    log_ms = fed(matured, world, samples_of(world, window_ms))
    final = (world.at_ms // AGES.cohort_ms + 1) * AGES.cohort_ms + AGES.final_ms <= log_ms
    report = matured.report()
    assert [scores["age"] for scores in report["by_age"]] == ["10s", "1m", "5m"]
    for scores, age_ms in zip(report["by_age"], AGES.ages_ms, strict=True):
        same(scores, reference(world, final, age_ms))
    calibrations = [scores["calibration"] for scores in (*report["by_age"], report["total"])]
    assert calibrations == sorted(calibrations, reverse=True)


def test_a_cohort_counts_at_the_log_time_at_which_it_is_final_and_not_before():
    one, no = np.ones(1), np.zeros(1)
    matured = MaturedLabels("logistic", AGES)
    events = LabelEvents(np.zeros(1, np.int64), np.array([-1]), np.zeros(1, bool))
    end_ms = AGES.cohort_ms + AGES.final_ms
    matured.score(binary_scores(no, no, one), events, end_ms - 1)
    assert matured.report()["total"]["samples"] == 0
    matured.score(binary_scores(*[np.empty(0)] * 3), events.where(np.zeros(1, bool)), end_ms)
    assert matured.report()["total"]["samples"] == 1


def test_a_sample_that_is_late_for_its_cohort_counts_at_once(world):
    one, no = np.ones(1), np.zeros(1)
    matured = MaturedLabels("logistic", AGES)
    fed(matured, world, samples_of(world, WINDOW_MS))
    before = matured.report()
    late = LabelEvents(np.zeros(1, np.int64), np.array([WINDOW_MS + 1]), np.ones(1, bool))
    matured.score(binary_scores(no, one, -one), late, 0)
    after = matured.report()
    assert after["total"]["positives"] == before["total"]["positives"] + 1
    assert after["total"]["negatives"] == before["total"]["negatives"] - 1
    assert after["cohorts"] == before["cohorts"]
    assert after["by_age"][1]["negatives"] == before["by_age"][1]["negatives"]


def test_the_last_cohorts_are_reported_and_add_up_to_all_while_none_was_dropped(world):
    matured = MaturedLabels("logistic", AGES)
    samples = samples_of(world, WINDOW_MS)
    fed(matured, world, samples[: len(samples) // 2])
    report = matured.report()
    assert sum(cohort["samples"] for cohort in report["cohorts"]) == report["total"]["samples"] > 0
    fed(matured, World(world.at_ms + 10**8, world.logits, world.age_ms), samples)
    assert len(matured.report()["cohorts"]) <= COHORTS


def test_a_numeric_label_is_scored_once_it_is_final():
    matured = MaturedLabels("squared", AGES)
    one, no = np.ones(2), np.zeros(2)
    events = LabelEvents(np.array([0, 10**7]), np.array([5, 5]), np.zeros(2, bool))
    matured.score(numeric_scores(NumericBatch(3 * one, one, one, no, 2 * one, no), "identity"), events, 10**7)
    report = matured.report()
    assert (report["total"]["samples"], report["total"]["calibration"], report["by_age"]) == (1, 1.5, [])


def test_restored_sums_continue_to_the_last_bit(world):
    straight, broken = MaturedLabels("logistic", AGES), MaturedLabels("logistic", AGES)
    samples = samples_of(world, WINDOW_MS)
    for start in range(0, len(samples), 500):
        fed(straight, world, samples[start : start + 500])
        fed(broken, world, samples[start : start + 500])
        state, broken = broken.to_bytes(), MaturedLabels("logistic", AGES)
        broken.restore(state)
    assert broken.to_bytes() == straight.to_bytes()
    assert broken.report() == straight.report()
    assert straight.report()["total"]["samples"] > 0


@pytest.mark.parametrize("other", [MaturedLabels("squared", AGES), MaturedLabels("logistic", LabelAges(1, 1))])
def test_state_of_another_loss_or_window_is_not_continued(world, other):
    matured = MaturedLabels("logistic", AGES)
    fed(matured, world, samples_of(world, WINDOW_MS))
    other.restore(matured.to_bytes())
    assert other.report()["total"]["samples"] == 0


def test_damaged_state_of_matured_labels_is_refused():
    with pytest.raises(DamagedError, match="of matured labels of 3 bytes is not JSON"):
        MaturedLabels("logistic", AGES).restore(b"{..")
    with pytest.raises(DamagedError, match="of matured labels has format 9"):
        MaturedLabels("logistic", AGES).restore(json.dumps({"format": 9}).encode())


@pytest.mark.parametrize(
    ("window_s", "horizon_s", "names", "cohort_ms"),
    [
        (600.0, 3_600.0, ("1m", "10m", "1h"), 600_000),
        (86_400.0, 6 * 86_400.0, ("1m", "1h", "1d"), 86_400_000),
        (10.0, 0.0, (), 1_000),
        (1.5, 60.0, ("1500ms", "1m"), 10_000),
    ],
)
def test_ages_are_those_of_the_window_and_horizon_of_the_feedback(window_s, horizon_s, names, cohort_ms):
    feedback = Feedback("clicks", "clicks", EventColumns(columns={}), window_s, horizon_s, "wait", ())
    ages = LabelAges.of(feedback, 30.0)
    assert (ages.names, ages.cohort_ms) == (names, cohort_ms)
    assert ages.final_ms == (window_s + horizon_s + 60) * 1000
