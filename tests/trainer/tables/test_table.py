"""The table: against a dict over random operations, its arithmetic against NumPy, its digest against a scan."""

import numpy as np
import pytest
import xxhash

from pipeline.configuration.model.fields import Adagrad
from pipeline.trainer.tables.table import STATISTICS_DTYPE, Table, row_dtype
from tests.support.reference.row_statistics import accumulate, mean_square, relative_step, settle, taylor_score
from tests.support.simd import forced_simd_level, simd_levels

KINDS = ["adagrad", "rowwise_adagrad"]
HALF_LIFE_S = 500.0
NOTHING = np.zeros(0, np.uint64)


def make(kind="rowwise_adagrad", dim=4, seed=7, init_scale=0.5, rate=0.1, initial=0.1, half_life_s=HALF_LIFE_S):
    optimizer = Adagrad(kind=kind, learning_rate=rate, initial_accumulator=initial)
    return Table(dim, optimizer, seed, init_scale, half_life_s)


def keys_of(*keys):
    return np.array(keys, np.uint64)


def ones(n):
    return np.ones(n, np.uint32)


def learn(rows, gradients, counts, at_s, kind, rate=0.1):
    """The NumPy reference of one update of packed rows, [n] row_dtype, in place."""
    weights, state = rows["weights"].copy(), rows["state"]
    squares = gradients * gradients
    state += squares if kind == "adagrad" else np.mean(squares, axis=1, keepdims=True, dtype=np.float32)
    steps = np.float32(rate) * gradients / np.sqrt(state + np.float32(1e-7))
    rows["weights"] -= steps
    score = taylor_score(gradients, weights)
    for name, added in (("importance", score), ("curvature", mean_square(gradients))):
        rows[name] = accumulate(rows[name], rows["last_seen_s"], added, at_s, HALF_LIFE_S)
    rows["unsettled"] = settle(rows["unsettled"], relative_step(steps, weights), rows["count"] == 0)
    rows["last_seen_s"] = np.maximum(rows["last_seen_s"], at_s)
    rows["count"] = np.minimum(rows["count"].astype(np.uint64) + counts, 2**32 - 1)


def assert_rows_close(actual, expected):
    for name in expected.dtype.names:
        np.testing.assert_allclose(actual[name], expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


def digest_of(table):
    """The digest by its definition, with another implementation of XXH64."""
    keys = table.keys()
    rows = table.rows(keys)
    return sum(xxhash.xxh64_intdigest(r.tobytes(), seed=int(k)) for k, r in zip(keys, rows, strict=True)) % 2**64


class Model:
    """What a table should be: a dict of packed rows, and sets of what changed."""

    def __init__(self, table, kind):
        self.table, self.kind, self.rows = table, kind, {}
        self.touched, self.removed = set(), set()

    def admit(self, keys, at_s):
        new = [k for k in dict.fromkeys(keys.tolist()) if k not in self.rows]
        assert self.table.admit(keys, at_s) == len(new)
        for key in new:
            row = self.table.rows(keys_of(key))
            assert [row[name][0] for name in STATISTICS_DTYPE.names] == [0, at_s, 0, 1, 0]
            self.rows[key] = row
        self.touched |= set(new)

    def update(self, keys, gradients, counts, at_s):
        self.table.update(keys, gradients, counts, at_s)
        for i, key in enumerate(keys.tolist()):
            if key in self.rows:
                learn(self.rows[key], gradients[i : i + 1], counts[i], at_s, self.kind)
                self.touched.add(key)

    def remove(self, keys):
        present = {k for k in keys.tolist() if k in self.rows}
        assert self.table.remove(keys) == len(present)
        for key in present:
            del self.rows[key]
        self.removed |= present

    def import_rows(self, keys, rows):
        self.table.import_rows(keys, rows)
        self.touched |= {k for k in keys.tolist() if k in self.removed and k not in self.rows}
        for i, key in enumerate(keys.tolist()):
            self.rows[key] = rows[i : i + 1].copy()

    def drain_changes(self):
        touched, removed = self.table.drain_changes()
        assert touched.tolist() == sorted(self.touched & set(self.rows))
        assert removed.tolist() == sorted(self.removed - set(self.rows))
        assert self.table.digest() == self.table.scan_digest() == digest_of(self.table)
        self.touched, self.removed = set(), set()

    def compare(self, queried):
        assert len(self.table) == len(self.rows)
        assert self.table.keys().tolist() == sorted(self.rows)
        resident = np.array([k in self.rows for k in queried.tolist()])
        np.testing.assert_array_equal(self.table.contains(queried), resident)
        weights = self.table.lookup(queried)
        assert not weights[~resident].any()
        if resident.any():
            expected = np.concatenate([self.rows[k] for k in queried[resident].tolist()])
            assert_rows_close(self.table.rows(queried[resident]), expected)
            np.testing.assert_array_equal(weights[resident], self.table.rows(queried[resident])["weights"])


@pytest.mark.parametrize("seed", range(24))
def test_table_is_a_dict_over_random_operations(seed):
    rng = np.random.default_rng(seed)
    kind, dim = KINDS[seed % 2], int(rng.choice([1, 3, 4, 8, 16, 17, 70]))
    model = Model(make(kind, dim), kind)
    # Keys 0 and 2^64 - 1, and few enough that they come, go and come back.
    pool = np.concatenate([keys_of(0, 2**64 - 1), rng.integers(0, 2**64, 60, np.uint64)])
    at_s = 1_000
    for _ in range(150):
        at_s += int(rng.integers(-20, 100))
        keys = rng.choice(pool, int(rng.integers(0, 20)), replace=False)
        match int(rng.integers(0, 7)):
            case 0 | 1:
                model.admit(np.concatenate([keys, keys[:3]]), at_s)
            case 2 | 3:
                gradients = rng.normal(size=(len(keys), dim)).astype(np.float32)
                model.update(keys, gradients, rng.integers(1, 5, len(keys)).astype(np.uint32), at_s)
            case 4:
                model.remove(np.concatenate([keys[:6], keys[:2]]))
            case 5:
                source = make(kind, dim, seed=int(rng.integers(0, 9)))
                source.admit(keys, at_s)
                model.import_rows(keys, source.rows(keys))
            case 6:
                model.drain_changes()
        model.compare(rng.choice(pool, 10))
    model.drain_changes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 7, 16, 130])
def test_one_update_is_the_papers_formula(kind, dim):
    rng = np.random.default_rng(dim)
    table, keys = make(kind, dim), np.arange(50, dtype=np.uint64)
    table.admit(keys, 100)
    expected = table.rows(keys)
    for at_s in (100, 250, 251):
        gradients = rng.normal(size=(50, dim)).astype(np.float32)
        table.update(keys, gradients, ones(50), at_s)
        learn(expected, gradients, ones(50), at_s, kind)
    assert_rows_close(table.rows(keys), expected)


def test_adagrad_of_one_weight_by_hand():
    table = make("adagrad", dim=1, init_scale=0.0, rate=0.5, initial=0.75)
    table.admit(keys_of(1), 0)
    table.update(keys_of(1), np.float32([[0.5]]), ones(1), 0)
    row = table.rows(keys_of(1))[0]
    assert row["state"].tolist() == [1.0]
    np.testing.assert_allclose(row["weights"], [-0.25], rtol=1e-6)


def test_rowwise_adagrad_keeps_the_mean_square_of_the_row():
    table = make("rowwise_adagrad", dim=2, init_scale=0.0, rate=1.0, initial=3.5)
    table.admit(keys_of(1), 0)
    table.update(keys_of(1), np.float32([[1, 0]]), ones(1), 0)
    row = table.rows(keys_of(1))[0]
    assert row["state"].tolist() == [4.0]
    np.testing.assert_allclose(row["weights"], [-0.5, 0], rtol=1e-6)


def test_first_weights_depend_on_key_and_seed_alone():
    keys = np.arange(1_000, dtype=np.uint64)
    table, other, reseeded = make(), make(), make(seed=8)
    table.admit(keys, 1)
    reseeded.admit(keys, 1)
    for key in keys[::-1]:
        other.admit(keys_of(key), 99)
    np.testing.assert_array_equal(table.lookup(keys), other.lookup(keys))
    assert np.mean(reseeded.lookup(keys) == table.lookup(keys)) < 0.01
    assert len(np.unique(table.lookup(keys))) > 3_990


def test_first_weights_are_uniform_within_their_scale():
    keys = np.arange(20_000, dtype=np.uint64)
    table = make(dim=8, init_scale=0.5)
    table.admit(keys, 1)
    weights = table.lookup(keys)
    assert np.abs(weights).max() <= 0.5
    share, _ = np.histogram(weights, bins=10, range=(-0.5, 0.5))
    np.testing.assert_allclose(share / weights.size, 0.1, atol=0.004)
    assert np.abs(np.corrcoef(weights.T) - np.eye(8)).max() < 0.03


def test_first_weights_never_change():
    """They are part of what makes training repeatable: another value here is another model."""
    table = make(dim=4, seed=1, init_scale=1.0)
    table.admit(keys_of(0, 2**64 - 1), 1)
    golden = [
        [-0.09877020120620728, -0.747645914554596, 0.6697644591331482, 0.5137372612953186],
        [0.7079852223396301, -0.6155465245246887, 0.15422016382217407, 0.6321646571159363],
    ]
    assert table.lookup(keys_of(0, 2**64 - 1)).tolist() == golden


def test_removed_key_comes_back_as_new():
    table = make()
    table.admit(keys_of(5), 1)
    first = table.lookup(keys_of(5))
    table.update(keys_of(5), np.ones((1, 4), np.float32), ones(1), 2)
    table.remove(keys_of(5))
    assert not table.lookup(keys_of(5)).any()
    table.admit(keys_of(5), 3)
    np.testing.assert_array_equal(table.lookup(keys_of(5)), first)


def test_packed_row_is_its_fields_in_order_without_gaps():
    table = make(dim=3)
    assert table.row_dtype == row_dtype(3, 1)
    assert table.row_bytes == 4 * (3 + 1) + 20
    assert [table.row_dtype.fields[name][1] for name in table.row_dtype.names] == [0, 12, 16, 20, 24, 28, 32]
    assert make("adagrad", dim=3).row_bytes == 4 * (3 + 3) + 20


@pytest.mark.parametrize(("more", "total"), [(2**32 - 3, 2**32 - 2), (2**32 - 2, 2**32 - 1), (2**32 - 1, 2**32 - 1)])
def test_count_stops_at_the_largest_uint32(more, total):
    table = make()
    table.admit(keys_of(1), 1)
    for count in (1, more):
        table.update(keys_of(1), np.ones((1, 4), np.float32), np.uint32([count]), 1)
    assert table.statistics(keys_of(1))["count"][0] == total


def test_time_inside_a_row_never_runs_backwards():
    table = make()
    table.admit(keys_of(1), 1_000)
    table.update(keys_of(1), np.ones((1, 4), np.float32), ones(1), 1_000)
    before = table.statistics(keys_of(1))
    table.update(keys_of(1), np.zeros((1, 4), np.float32), ones(1), 10)
    after = table.statistics(keys_of(1))
    assert after["last_seen_s"] == 1_000
    assert after["importance"] == before["importance"]


def test_importance_halves_after_a_half_life():
    table = make()
    table.admit(keys_of(1), 0)
    table.update(keys_of(1), np.ones((1, 4), np.float32), ones(1), 0)
    before = table.statistics(keys_of(1))["importance"][0]
    table.update(keys_of(1), np.zeros((1, 4), np.float32), ones(1), int(HALF_LIFE_S))
    assert before > 0
    assert table.statistics(keys_of(1))["importance"][0] == before / 2


def test_row_with_small_steps_settles():
    table = make(rate=1e-4)
    table.admit(keys_of(1), 0)
    for second in range(80):
        table.update(keys_of(1), np.float32([[1, -1, 1, -1]]) * (-1) ** second, ones(1), second)
    assert table.statistics(keys_of(1))["unsettled"][0] < 0.01


def test_enormous_gradients_leave_every_number_finite():
    table = make(dim=1024, rate=1e6)
    table.admit(keys_of(1), 0)
    for second in range(20):
        table.update(keys_of(1), np.full((1, 1024), 1e17, np.float32), ones(1), second)
    row = table.rows(keys_of(1))[0]
    assert all(np.isfinite(row[name]).all() for name in row.dtype.names)
    assert 0 <= row["unsettled"] <= 1


def test_statistics_of_a_missing_key_are_those_of_a_row_never_seen():
    assert make().statistics(keys_of(3)).tolist() == [(0, 0, 0.0, 1.0, 0.0)]


def test_statistics_come_in_the_order_of_keys():
    table = make()
    table.admit(keys_of(9, 2, 2**63), 5)
    table.update(keys_of(2), np.ones((1, 4), np.float32), np.uint32([3]), 6)
    keys = table.keys()
    statistics = table.statistics(keys)
    assert keys.tolist() == [2, 9, 2**63]
    assert statistics.dtype == STATISTICS_DTYPE
    assert statistics["count"].tolist() == [3, 0, 0]
    assert statistics["last_seen_s"].tolist() == [6, 5, 5]


def test_changes_are_returned_once():
    table = make()
    table.admit(keys_of(3, 1), 1)
    assert [c.tolist() for c in table.drain_changes()] == [[1, 3], []]
    assert [c.tolist() for c in table.drain_changes()] == [[], []]
    table.update(keys_of(3, 4), np.ones((2, 4), np.float32), ones(2), 1)
    table.remove(keys_of(1, 8))
    assert [c.tolist() for c in table.drain_changes()] == [[3], [1]]


def test_key_removed_and_admitted_again_is_touched_and_not_removed():
    table = make()
    table.admit(keys_of(1), 1)
    table.drain_changes()
    table.remove(keys_of(1))
    table.admit(keys_of(1), 2)
    assert [c.tolist() for c in table.drain_changes()] == [[1], []]


def test_reads_change_nothing():
    table = make()
    table.admit(keys_of(1), 1)
    table.drain_changes()
    queried = keys_of(1, 2)
    for read in (table.lookup, table.contains, table.statistics):
        read(queried)
    table.rows(keys_of(1))
    assert [len(c) for c in table.drain_changes()] == [0, 0]
    assert len(table) == 1


def test_restored_table_has_no_changes_and_the_same_digest():
    table = make()
    keys = np.arange(500, dtype=np.uint64)
    table.admit(keys, 1)
    table.update(keys, np.ones((500, 4), np.float32), ones(500), 2)
    table.drain_changes()
    restored = make()
    restored.import_rows(keys[::-1].copy(), table.rows(keys[::-1].copy()).view(np.uint8).reshape(500, table.row_bytes))
    assert restored.digest() == restored.scan_digest() == table.digest()
    assert [len(c) for c in restored.drain_changes()] == [0, 0]
    np.testing.assert_array_equal(restored.rows(keys), table.rows(keys))


def test_removed_key_that_is_imported_back_stays_a_change():
    table = make()
    table.admit(keys_of(1), 1)
    table.drain_changes()
    rows = table.rows(keys_of(1))
    table.remove(keys_of(1))
    table.import_rows(keys_of(1), rows)
    assert [c.tolist() for c in table.drain_changes()] == [[1], []]
    assert table.digest() == table.scan_digest()


def test_digest_is_as_of_the_last_changes_taken():
    table = make()
    table.admit(keys_of(1, 2), 1)
    assert table.digest() == 0
    table.drain_changes()
    settled = table.digest()
    table.remove(keys_of(1))
    table.update(keys_of(2), np.ones((1, 4), np.float32), ones(1), 2)
    assert table.digest() == settled
    table.drain_changes()
    assert table.digest() == digest_of(table) != settled


@pytest.mark.parametrize("dim", [1, 7, 16, 33])
def test_first_weights_are_the_same_at_every_simd_level(dim):
    def first_weights(level):
        with forced_simd_level(level):
            table, keys = make(dim=dim), np.arange(100, dtype=np.uint64)
            table.admit(keys, 1)
            return table.lookup(keys).tobytes()

    assert len({first_weights(level) for level in simd_levels()}) == 1


def test_digest_does_not_depend_on_the_order_of_arrival():
    keys = np.random.default_rng(3).integers(0, 2**64, 5_000, np.uint64)
    forth, back = make(), make()
    forth.admit(keys, 1)
    for part in np.array_split(keys[::-1], 7):
        back.admit(part.copy(), 1)
        back.drain_changes()
    forth.drain_changes()
    assert forth.digest() == back.digest()


def test_same_calls_give_the_same_bytes():
    def trained():
        rng, table = np.random.default_rng(11), make("adagrad", dim=16)
        for second in range(30):
            keys = np.unique(rng.integers(0, 2_000, 300, np.uint64))
            table.admit(keys, second)
            table.update(keys, rng.normal(size=(len(keys), 16)).astype(np.float32), ones(len(keys)), second)
        table.drain_changes()
        return table.rows(table.keys()).tobytes(), table.digest()

    assert trained() == trained()


def test_rows_stay_right_while_the_table_grows_and_shrinks():
    table, keys = make(dim=2), np.arange(200_000, dtype=np.uint64) << np.uint64(32)
    table.admit(keys, 1)
    weights = table.lookup(keys)
    table.remove(keys[::2].copy())
    np.testing.assert_array_equal(table.lookup(keys[1::2].copy()), weights[1::2])
    assert not table.contains(keys[::2].copy()).any()
    table.admit(keys, 2)
    np.testing.assert_array_equal(table.lookup(keys), weights)
    table.drain_changes()
    assert table.digest() == table.scan_digest()


def test_removing_makes_room_for_others():
    table, keys = make(), np.arange(50_000, dtype=np.uint64)
    table.admit(keys, 1)
    table.drain_changes()
    full = table.memory_bytes
    for _ in range(5):
        table.remove(keys)
        table.drain_changes()
        keys += np.uint64(50_000)
        table.admit(keys, 1)
        table.drain_changes()
    assert table.memory_bytes < 1.3 * full


def test_calls_with_no_keys_do_nothing():
    table = make()
    assert (table.admit(NOTHING, 1), table.remove(NOTHING), len(table.rows(NOTHING))) == (0, 0, 0)
    table.update(NOTHING, np.zeros((0, 4), np.float32), ones(0), 1)
    table.import_rows(NOTHING, np.zeros(0, table.row_dtype))
    assert table.lookup(NOTHING).shape == (0, 4)
    assert (len(table.keys()), table.digest(), table.scan_digest()) == (0, 0, 0)
