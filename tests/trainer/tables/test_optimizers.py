"""The sparse optimizers: each against its paper's equations in NumPy, and what makes each of them worth having."""

import numpy as np
import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.model.fields import Adagrad, Adam, Ftrl, GroupFtrl, Optimizer, Sgd
from pipeline.errors import ConfigError, InputError
from pipeline.trainer.tables.table import Table, row_dtype, state_floats

FEW = np.arange(7, dtype=np.uint64)


def sgd(o, w, state, g):
    """Robbins and Monro 1951."""
    return w - o.learning_rate * g, state


def adagrad(o, w, state, g):
    """Duchi, Hazan and Singer 2011, figure 1, diagonal."""
    total = state + g**2
    return w - o.learning_rate * g / np.sqrt(total + 1e-7), total


def rowwise_adagrad(o, w, state, g):
    """The same with one sum per row, of the mean square (Mudigere et al. 2022, section 4.1.4)."""
    total = state + np.mean(g**2, axis=1, keepdims=True)
    return w - o.learning_rate * g / np.sqrt(total + 1e-7), total


def adam(o, w, state, g):
    """Kingma and Ba 2015, algorithm 1; t is the row's own."""
    t, m, v = state[:, :1] + 1, *np.hsplit(state[:, 1:], 2)
    beta1, beta2 = float(np.float32(o.beta1)), float(np.float32(o.beta2))
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    corrected_m, corrected_v = m / (1 - beta1**t), v / (1 - beta2**t)
    return w - o.learning_rate * corrected_m / (np.sqrt(corrected_v) + o.epsilon), np.hstack([t, m, v])


def ftrl_sums(o, w, state, g):
    """The sums z and n of McMahan et al. 2013, algorithm 1, and the curvature that follows from n."""
    z, n = np.hsplit(state, 2)
    sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / o.learning_rate
    z, n = z + g - sigma * w, n + g**2
    return z, n, (o.beta + np.sqrt(n)) / o.learning_rate + o.l2


def ftrl(o, w, state, g):
    """McMahan et al. 2013, algorithm 1."""
    z, n, q = ftrl_sums(o, w, state, g)
    w = np.where(np.abs(z) <= o.l1, 0, -(z - np.sign(z) * o.l1) / q)
    return w, np.hstack([z, n])


def group_ftrl(o, w, state, g):
    """Yue et al. 2021, theorem 1, with the sums of FTRL."""
    z, n, q = ftrl_sums(o, w, state, g)
    s = np.sign(z) * np.maximum(np.abs(z) - o.l1, 0)
    length = np.linalg.norm(s / np.sqrt(q), axis=1, keepdims=True)
    least = o.l21 * np.sqrt(w.shape[1])
    w = np.where(length > least, -s / q * (1 - least / np.maximum(length, 1e-30)), 0)
    return w, np.hstack([z, n])


CASES = {
    "sgd": (Sgd(kind="sgd", learning_rate=0.3), sgd),
    "adagrad": (Adagrad(kind="adagrad", learning_rate=0.3), adagrad),
    "rowwise_adagrad": (Adagrad(kind="rowwise_adagrad", learning_rate=0.3), rowwise_adagrad),
    "adam": (Adam(kind="adam", learning_rate=0.01), adam),
    "adam without momentum": (Adam(kind="adam", beta1=0.0, beta2=0.5, epsilon=1e-3), adam),
    "ftrl": (Ftrl(kind="ftrl", learning_rate=0.2, l1=0.4, l2=0.3), ftrl),
    "ftrl without penalties": (Ftrl(kind="ftrl"), ftrl),
    "group_ftrl": (GroupFtrl(kind="group_ftrl", learning_rate=0.2, l1=0.1, l2=0.3, l21=0.3), group_ftrl),
    "group_ftrl without penalties": (GroupFtrl(kind="group_ftrl", l21=0.0), group_ftrl),
}


def make(optimizer: Optimizer, dim: int) -> Table:
    return Table(dim, optimizer, seed=3, init_scale=0.5, half_life_s=100.0)


def learn(table: Table, keys, gradients, at_s=1):
    table.update(keys, np.float32(gradients), np.ones(len(keys), np.uint32), at_s)


@pytest.mark.parametrize("dim", [1, 3, 16, 70])
@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_the_paper(name, dim):
    optimizer, reference = CASES[name]
    table, rng = make(optimizer, dim), np.random.default_rng(dim)
    table.admit(FEW, 1)
    for _ in range(40):
        gradients = np.float32(rng.normal(size=(len(FEW), dim)) * rng.choice([0, 0.01, 1, 30], (len(FEW), 1)))
        before = table.rows(FEW)
        learn(table, FEW, gradients)
        after = table.rows(FEW)
        given = (array.astype(np.float64) for array in (before["weights"], before["state"], gradients))
        weights, state = reference(optimizer, *given)
        scale = np.abs(before["weights"]).max() + np.abs(weights).max()
        np.testing.assert_allclose(after["weights"], weights, rtol=2e-5, atol=1e-6 * scale)
        np.testing.assert_allclose(after["state"], state, rtol=2e-5, atol=1e-6 * max(1, np.abs(state).max(initial=0)))


@pytest.mark.parametrize("name", CASES)
def test_row_dtype_holds_the_optimizer_state(name):
    optimizer, _ = CASES[name]
    assert make(optimizer, 5).row_dtype == row_dtype(5, state_floats(optimizer, 5))


@pytest.mark.parametrize("name", CASES)
def test_every_gradient_and_row_leaves_all_numbers_finite(name):
    optimizer, _ = CASES[name]
    table, rng = make(optimizer, 3), np.random.default_rng(1)
    extremes = np.float32([0, 1e-38, -1e-38, 1e17, -1e17, 3.4e38, -3.4e38, 1])
    for _ in range(200):
        rows = np.zeros(len(FEW), table.row_dtype)
        rows["weights"] = rng.choice(extremes, rows["weights"].shape)
        import_first_accepted(table, rows, rng.choice(extremes, rows["state"].shape))
        for _ in range(2):
            learn(table, FEW, np.clip(rng.choice(extremes, (len(FEW), 3)), -1e17, 1e17))
        after = table.rows(FEW)
        assert all(np.isfinite(after[field]).all() for field in after.dtype.names)
        make(optimizer, 3).import_rows(FEW, after)


def import_first_accepted(table, rows, state):
    """No optimizer has every state: sums of squares are not negative, counts are integers."""
    second_half = np.arange(state.shape[1]) >= state.shape[1] // 2
    for candidate in (np.where(second_half, np.abs(state), state), np.abs(state), 0 * state):
        rows["state"] = candidate
        try:
            return table.import_rows(FEW, rows)
        except InputError:
            continue
    raise AssertionError("not even zeros are a state")


def test_adam_counts_the_steps_of_each_row():
    table = make(CASES["adam"][0], 2)
    table.admit(FEW, 1)
    learn(table, FEW[:2], np.ones((2, 2)))
    before = table.rows(FEW)
    learn(table, FEW[1:3], np.ones((2, 2)))
    after = table.rows(FEW)
    assert after["state"][:4, 0].tolist() == [1, 2, 1, 0]
    assert after[0] == before[0]  # lazy: not in the batch, not moved


def test_l1_empties_weights_without_a_consistent_gradient():
    table, rng = make(Ftrl(kind="ftrl", l1=5.0), 2), np.random.default_rng(1)
    table.admit(FEW, 1)
    for _ in range(200):
        learn(table, FEW, np.stack([rng.normal(size=len(FEW)) * 0.1, np.full(len(FEW), 0.5)], axis=1))
    weights = table.lookup(FEW)
    assert not weights[:, 0].any()
    assert (weights[:, 1] < -0.1).all()


def test_group_lasso_empties_whole_rows_and_no_single_weights():
    table, rng = make(GroupFtrl(kind="group_ftrl", l21=0.5), 8), np.random.default_rng(1)
    table.admit(FEW, 1)
    meaning = np.where(FEW < 3, 0.5, 0.0)[:, None]
    for _ in range(200):
        learn(table, FEW, meaning + rng.normal(size=(len(FEW), 8)) * 0.1)
    weights = table.lookup(FEW)
    assert weights[:3].all()
    assert not weights[3:].any()


def test_group_lasso_takes_the_row_that_minimises_its_objective():
    optimizer, rng = CASES["group_ftrl"][0], np.random.default_rng(2)
    table = make(optimizer, 4)
    table.admit(FEW, 1)
    for _ in range(30):
        learn(table, FEW, rng.normal(size=(len(FEW), 4)) + 0.3)
    rows = table.rows(FEW)
    z, n = np.hsplit(rows["state"].astype(np.float64), 2)
    q = (optimizer.beta + np.sqrt(n)) / optimizer.learning_rate + optimizer.l2

    def objective(w):
        group = optimizer.l21 * np.sqrt(4) * np.linalg.norm(np.sqrt(q) * w, axis=1)
        return (z * w + q * w**2 / 2 + optimizer.l1 * np.abs(w)).sum(axis=1) + group

    best = objective(rows["weights"].astype(np.float64))
    for _ in range(300):
        nearby = rows["weights"] + rng.normal(size=rows["weights"].shape) * rng.choice([1e-3, 1e-2, 0.1])
        assert (objective(nearby) >= best - 1e-6 * np.abs(best)).all()


def configured(optimizer):
    columns = {"id": "int", "user": "string"}
    document = {
        "events": {"key": ["id"], "impressions": {"columns": columns}, "clicks": {"columns": {"id": "int"}}},
        "fields": [{"name": "user", "columns": ["user"], "optimizer": optimizer}],
    }
    return parse_config(document).fields[0].optimizer


def test_settings_without_a_kind_are_those_of_rowwise_adagrad():
    assert configured({"learning_rate": 0.2}) == Adagrad(kind="rowwise_adagrad", learning_rate=0.2)
    assert configured({"kind": "group_ftrl", "l21": 0.5}) == GroupFtrl(kind="group_ftrl", l21=0.5)


@pytest.mark.parametrize(
    ("optimizer", "problem"),
    [
        ({"kind": "newton"}, "fields.0.optimizer: kind is one of sgd, adagrad"),
        ({"kind": "adam", "momentum": 0.9}, "fields.0.optimizer.momentum: unknown key"),
        ({"kind": "sgd", "initial_accumulator": 0.1}, "fields.0.optimizer.initial_accumulator: unknown key"),
        ({"kind": "adam", "beta1": 1.0}, "fields.0.optimizer.beta1: Input should be less than 1"),
        ({"kind": "ftrl", "l1": -0.1}, "fields.0.optimizer.l1: Input should be greater than or equal to 0"),
        ({"learning_rate": 1e7}, "fields.0.optimizer.learning_rate: Input should be less than or equal to 1000000"),
        ("adam", "fields.0.optimizer: kind is one of"),
    ],
)
def test_configuration_names_what_is_wrong_with_an_optimizer(optimizer, problem):
    with pytest.raises(ConfigError, match=problem):
        configured(optimizer)


def test_every_problem_of_an_optimizer_is_reported_at_once():
    with pytest.raises(ConfigError) as raised:
        configured({"kind": "ftrl", "l1": -1, "l21": 1, "beta": 0})
    assert all(f"optimizer.{name}:" in str(raised.value) for name in ("l1", "l21", "beta"))
