"""The gate: no alarm on clean samples, every fault within 20,000, evidence within its bound, restored to the bit."""

import numpy as np
import pytest

from pipeline.configuration.model.gate import GateConfig
from pipeline.trainer.validation.gate import calibration, gain
from pipeline.trainer.validation.gate.calibration import GateSamples
from pipeline.trainer.validation.gate.evidence import Evidence
from pipeline.trainer.validation.gate.gate import Gate
from pipeline.trainer.validation.gate.lagging import LaggingSums
from tests.support.synthetic.scored_stream import ScoredStream

CONFIG = GateConfig(source="campaign", lag_samples=20_000, warm_up_samples=60_000)
BATCH = 1_024


def run(gate, stream, samples):
    """Score samples in batches until the state is not healthy; returns how many were scored."""
    for scored in range(0, samples, BATCH):
        gate.score(stream.batch(BATCH))
        if gate.state != "healthy":
            return scored + BATCH
    return samples


@pytest.fixture(scope="module", params=[1, 2, 3])
def warm(request):
    """A gate after 200,000 clean samples, and the stream; neither is changed by a test."""
    gate, stream = Gate(CONFIG), ScoredStream(request.param)
    assert run(gate, stream, 200_000) == 200_000
    assert gate.report()["samples"] >= CONFIG.warm_up_samples
    return gate.to_bytes(), stream


def after(warm):
    stored, clean = warm
    gate = Gate(CONFIG)
    gate.load(stored)
    stream = ScoredStream(clean.seed)
    stream.batch(1)
    stream.samples = clean.samples
    return gate, stream


@pytest.mark.parametrize("fault", ["flipped", "dead", "bots"])
def test_a_fault_is_caught_within_twenty_thousand_samples(warm, fault):
    gate, stream = after(warm)
    stream.fault = fault
    assert run(gate, stream, 20_000) < 20_000
    assert gate.state != "healthy"


def test_an_alarm_by_calibration_names_the_source(warm):
    gate, stream = after(warm)
    stream.fault = "bots"
    run(gate, stream, 20_000)
    assert gate.worst_source == 0


def test_flipped_labels_make_both_signals_alarm(warm):
    gate, stream = after(warm)
    stream.fault = "flipped"
    for _ in range(20):
        gate.score(stream.batch(BATCH))
    assert gate.state == "corrupted"


def test_a_burst_ends_and_the_state_is_healthy_again(warm):
    gate, stream = after(warm)
    stream.fault = "bots"
    run(gate, stream, 20_000)
    stream.fault = None
    for _ in range(400):
        gate.score(stream.batch(BATCH))
    assert gate.state == "healthy"


def test_nothing_is_tested_before_the_warm_up():
    gate, stream = Gate(CONFIG), ScoredStream(1, fault="flipped")
    assert run(gate, stream, 30_000) == 30_000


def test_a_gate_continues_from_its_bytes_to_the_bit(warm):
    one, stream = after(warm)
    other, again = after(warm)
    for _ in range(30):
        one.score(stream.batch(BATCH))
        other.score(again.batch(BATCH))
        restored = Gate(CONFIG)
        restored.load(other.to_bytes())
        other = restored
    assert one.to_bytes() == other.to_bytes()


@pytest.mark.parametrize("changed", [{"source": "app"}, {"label": "other"}, {"buckets": 64}, {"lag_samples": 10_000}])
def test_a_gate_of_other_samples_begins_anew(warm, changed):
    other = Gate(CONFIG.model_copy(update=changed))
    other.load(warm[0])
    assert other.report()["samples"] == 0


def test_a_change_of_tolerance_keeps_the_past_and_the_state(warm):
    gate, stream = after(warm)
    stream.fault = "flipped"
    run(gate, stream, 20_000)
    other = Gate(CONFIG.model_copy(update={"tolerance": 0.5, "false_alarm_every_samples": 1e10}))
    other.load(gate.to_bytes())
    assert (other.state, other.report()["samples"]) == (gate.state, gate.report()["samples"])
    assert other.state != "healthy"


def test_no_samples_change_nothing(warm):
    gate, _ = after(warm)
    gate.score(GateSamples(np.empty(0), np.empty(0), np.empty(0, np.int64)))
    assert gate.to_bytes() == warm[0]


def test_false_alarms_are_as_rare_as_stated():
    """Likelihood ratios of normal values, at a threshold at which one run in ten may have a false alarm."""
    random, alarms, runs, steps = np.random.default_rng(1), 0, 1_000, 200
    for _ in range(runs):
        evidence = Evidence(2, steps * 10)
        values = random.normal(0, 1, steps)
        strength = 0.0
        for value in values:
            evidence.add(np.array([value - 0.5, -value - 0.5]))
            strength = max(strength, evidence.strength)
        alarms += strength >= 1
    assert alarms <= 0.1 * runs


def samples(truth, stated, n=200_000, seed=1):
    random = np.random.default_rng(seed)
    logits = np.full(n, float(stated))
    labels = (random.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float64)
    return GateSamples(logits, labels, np.zeros(n, np.int64))


@pytest.mark.parametrize("shift", [-0.3, -0.2, 0.0, 0.2, 0.3])
def test_e_values_of_calibration_have_mean_one_at_most_within_the_tolerance(shift):
    tested, one = samples(-2 + shift, -2), np.ones(1)
    each = [
        calibration.log_e_values(
            GateSamples(tested.logits[:1], np.array([label]), tested.sources[:1]), 0 * one, 0.3 * one
        )
        for label in (0.0, 1.0)
    ]
    rate = 1 / (1 + np.exp(2 - shift))
    mean = (1 - rate) * np.exp(each[0]) + rate * np.exp(each[1])
    assert (mean <= 1 + 1e-9).all()
    assert np.isclose(mean.max(), 1) == (abs(shift) == 0.3)


def test_e_values_of_the_gain_are_positive_and_fair():
    random = np.random.default_rng(2)
    least = 0.05
    gained = np.clip(random.normal(least, 1, 100_000), -gain.LIMIT, gain.LIMIT)
    shortfall = least - gained
    for bet in gain.BETS:
        e = 1 + bet * shortfall
        assert e.min() > 0
        assert abs(e.mean() - 1) < 0.005
    extreme = gain.log_e_values(np.array([gain.LIMIT, -gain.LIMIT]), -100.0)
    assert np.isfinite(extreme).all()


def test_the_past_leaves_out_the_newest_samples():
    sums = LaggingSums(1, 1, lag=100, memory=10_000)
    for n in range(250):
        sums.add(np.ones((1, 1)), 1)
        assert sums.samples == (0 if n < 199 else 100)
        assert (sums.sums > 0).all() == (n >= 199)


def test_few_batches_of_a_healthy_stream_meet_an_objection_and_those_of_bots_do(warm):
    gate, stream = after(warm)
    before = gate.to_bytes()
    assert sum(gate.objects(stream.batch(BATCH)) for _ in range(100)) <= 1
    stream.fault = "bots"
    assert sum(gate.objects(stream.batch(20 * BATCH)) for _ in range(5)) == 5
    assert gate.to_bytes() == before
