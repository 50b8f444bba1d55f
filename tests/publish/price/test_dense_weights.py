"""Dense weights in serving: steps by curvature, error feedback, what a change costs, and changes that do not fit."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import DeltaError
from pipeline.model.network.served_weights import ServedWeights, dense_after
from pipeline.model.network.weights import BLOCK, Contents, pack, unpack, write_contents
from pipeline.model.training.curvature import Curvature
from pipeline.publish.price.byte_price import Price
from pipeline.publish.price.dense_weights import PublishedDense, TrainedWeights
from pipeline.versions.deltas.coded_rows import ChangedRows, code_rows, decode_coded_rows
from pipeline.versions.deltas.delta import DenseChange
from tests.support.synthetic.dense_walk import (
    BIAS,
    COUNT,
    CURVATURE,
    KERNEL,
    LAST,
    SCALING,
    DenseWalk,
    price_of_rounding,
    publish_dense,
)

ROUNDING = 0.02


def steps_of(served: bytes, name: str) -> np.ndarray:
    """[blocks] the step of each block of an array."""
    return np.ldexp(1.0, ServedWeights.of(served).blocks(name)[:, 0].view(np.int8).astype(int))


def one_array(weights: np.ndarray, squares: np.ndarray | None = None) -> TrainedWeights:
    """A network of one variable whose accumulator begins at 0."""
    arrays = {"variable/0/w": weights.astype(np.float32)}
    if squares is None:
        return TrainedWeights(pack(arrays), Curvature({"variable/0/w": None}))
    arrays["accumulator/0"] = squares.astype(np.float32)
    return TrainedWeights(pack(arrays), Curvature({"variable/0/w": "accumulator/0"}))


@pytest.mark.parametrize("seed", range(3))
def test_changes_lead_to_the_bytes_that_the_trainer_has(seed):
    walk, published, served, kinds = DenseWalk(seed), PublishedDense(b""), b"", []
    for number in range(40):
        walk.step(scale=30.0 if number == 20 else 1.0)
        update = publish_dense(published, walk.trained())
        served, digest = dense_after(served, update.sent, b"")
        assert served == update.served == published.served
        if isinstance(update.sent, DenseChange):
            assert digest == update.sent.digest
        kinds.append(type(update.sent))
    assert kinds[0] is bytes
    assert kinds.count(DenseChange) > 30


def test_every_weight_is_within_half_a_step_and_other_arrays_are_exact():
    walk, published = DenseWalk(), PublishedDense(b"")
    for _ in range(10):
        walk.step()
        served = publish_dense(published, walk.trained()).served
        arrays = unpack(served)
        for name, weights in walk.weights.items():
            steps = np.repeat(steps_of(served, name), BLOCK)[: weights.size].reshape(weights.shape)
            assert (np.abs(arrays[name] - weights) <= steps / 2).all()
    trained = unpack(walk.packed())
    assert list(arrays) == [KERNEL, BIAS, LAST, COUNT, SCALING]
    assert all(arrays[name].tobytes() == trained[name].tobytes() for name in (COUNT, SCALING))


def test_weights_that_moved_less_than_half_a_step_cost_nothing():
    weights, squares = np.full((2, BLOCK), 0.5), np.ones((2, BLOCK))
    published = PublishedDense(b"")
    served = publish_dense(published, one_array(weights, squares)).served
    step = steps_of(served, "variable/0/w")[0]
    held = unpack(served)["variable/0/w"]
    update = publish_dense(published, one_array(held + 0.49 * step, squares))
    assert (update.sent.blocks, update.sent.arrays, update.served) == (b"", None, served)
    moved = held.copy()
    moved[1, 3] += np.float32(0.51 * step)
    update = publish_dense(published, one_array(moved, squares))
    assert decode_coded_rows(update.sent.blocks, BLOCK).handles.tolist() == [1]
    assert (unpack(update.served)["variable/0/w"] - held)[1, 3] == np.float32(step)


def test_what_rounding_took_away_is_sent_once_it_adds_up():
    weights, squares = np.full((1, BLOCK), 0.5), np.ones((1, BLOCK))
    published = PublishedDense(b"")
    step = steps_of(publish_dense(published, one_array(weights, squares)).served, "variable/0/w")[0]
    for number in range(1, 41):
        drifted = weights + number * step / 10
        held = unpack(publish_dense(published, one_array(drifted, squares)).served)["variable/0/w"]
        assert (np.abs(held - drifted) <= step / 2 * 1.001).all()


def test_the_step_of_a_block_falls_with_the_root_of_its_squared_gradients():
    squares = np.ones((3, BLOCK)) * np.array([[1.0], [16.0], [64.0]])
    served = publish_dense(PublishedDense(b""), one_array(np.full((3, BLOCK), 0.5), squares)).served
    steps = steps_of(served, "variable/0/w")
    assert (steps / steps[2]).tolist() == [8, 2, 1]


def test_the_step_of_weights_without_a_gradient_is_bounded():
    squares = np.ones((2, BLOCK)) * np.array([[0.0], [1.0]])
    served = publish_dense(PublishedDense(b""), one_array(np.full((2, BLOCK), 0.5), squares)).served
    steps = steps_of(served, "variable/0/w")
    assert 1 < steps[0] / steps[1] <= 32


def test_without_squared_gradients_the_step_follows_the_size_of_the_variable():
    random = np.random.default_rng(1)
    for scale in (1e-3, 1.0, 1e3):
        weights = random.normal(0, scale, (4, BLOCK))
        served = publish_dense(PublishedDense(b""), one_array(weights)).served
        error = unpack(served)["variable/0/w"] - weights
        assert ROUNDING / 4 < np.sqrt((error**2).mean() / (weights**2).mean()) <= ROUNDING * 1.1


@pytest.mark.parametrize("rounding", [0.001, 0.01, 0.1])
def test_the_weighted_error_is_at_most_the_setting(rounding):
    walk = DenseWalk()
    for _ in range(20):
        walk.step()
    served = unpack(publish_dense(PublishedDense(b""), walk.trained(), rounding).served)
    names = list(walk.weights)
    gradients = {name: walk.squares[name] - np.float32(0.1) for name in names}
    error = sum((gradients[name] * (served[name] - walk.weights[name]) ** 2).sum() for name in names)
    effect = sum((gradients[name] * walk.weights[name] ** 2).sum() for name in names)
    assert 0.2 * rounding < np.sqrt(error / effect) <= 1.3 * rounding


def test_a_network_that_has_not_learned_yet_and_one_of_zeros_are_served():
    for weights in (np.zeros((1, 7)), np.full((1, 7), -0.25)):
        served = publish_dense(PublishedDense(b""), one_array(weights, np.zeros((1, 7)))).served
        assert np.abs(unpack(served)["variable/0/w"] - weights).max() <= 0.05


def test_a_weight_that_outgrows_8_bits_is_sent_by_a_change():
    squares, published = np.ones((1, BLOCK)), PublishedDense(b"")
    weights = np.full((1, BLOCK), 0.01)
    publish_dense(published, one_array(weights, squares))
    for largest in (10.0, 0.01):
        weights[0, 0] = largest
        update = publish_dense(published, one_array(weights, squares))
        assert isinstance(update.sent, DenseChange)
        assert unpack(update.served)["variable/0/w"][0, 0] == pytest.approx(largest, abs=0.01)


def of_8_bits(served: bytes) -> bytes:
    """The weights of one array with integers of 8 bits, as earlier releases serve them."""
    (entry,) = ServedWeights.of(served).contents.entries
    payloads = ServedWeights.of(served).blocks(entry.name)
    values = payloads[:, 1:].copy().view("<i2").astype(np.int8)
    part = np.concatenate([payloads[:, :1], values.view(np.uint8)], axis=1).tobytes()
    return write_contents(Contents((entry._replace(bits=8),), (part,), (entry._replace(bits=8),)))


def test_weights_that_are_served_in_8_bits_are_followed_by_all_weights():
    weights, squares = np.full((2, BLOCK), 0.5), np.ones((2, BLOCK))
    served = publish_dense(PublishedDense(b""), one_array(weights, squares)).served
    published = PublishedDense(of_8_bits(served))
    assert unpack(published.served)["variable/0/w"].tobytes() == unpack(served)["variable/0/w"].tobytes()
    update = publish_dense(published, one_array(weights, squares))
    assert (update.sent, update.served) == (served, served)
    assert isinstance(publish_dense(published, one_array(1.5 * weights, squares)).sent, DenseChange)


def test_weights_without_any_variable_in_blocks_are_served():
    published = PublishedDense(b"")
    for number in (1, 2, 2):
        update = publish_dense(published, TrainedWeights(pack({COUNT: np.array(number)}), Curvature({})))
        assert unpack(update.served)[COUNT] == number
    assert (update.sent.arrays, update.sent.blocks) == (None, b"")


@pytest.fixture(scope="module")
def step():
    """Weights as served, and the next update."""
    walk, published = DenseWalk(), PublishedDense(b"")
    walk.step()
    before = publish_dense(published, walk.trained()).served
    for _ in range(4):
        walk.step()
    return before, publish_dense(published, walk.trained())


@pytest.mark.parametrize("names", [{KERNEL}, {BIAS, LAST}, {LAST, COUNT, SCALING}, {COUNT}])
def test_a_part_of_the_weights_follows_the_same_changes(step, names):
    before, update = step
    part = ServedWeights.of(before).cut_to(names)
    wanted = ServedWeights.of(update.served).cut_to(names).packed()
    changed = ServedWeights.of(part.packed()).changed(update.sent).packed()
    assert changed == wanted
    assert set(unpack(changed)) == names
    assert dense_after(part.packed(), update.sent, b"of all") == (wanted, b"of all")


def test_a_change_that_was_made_from_other_weights_does_not_lead_to_its_digest(step):
    _, update = step
    walk, other = DenseWalk(7), PublishedDense(b"")
    walk.step()
    packed, digest = dense_after(publish_dense(other, walk.trained()).served, update.sent, b"")
    assert (packed != update.served, digest != update.sent.digest) == (True, True)


def with_keys() -> bytes:
    """A stream that removes a key."""
    none = [np.empty(0, kind) for kind in (np.uint32, np.bool_, np.uint64, np.uint32, np.uint8, np.uint8)]
    return code_rows(ChangedRows(*none, np.array([7], np.uint64)), BLOCK)


def test_changes_that_do_not_fit_are_refused(step):
    before, update = step
    small = publish_dense(PublishedDense(b""), one_array(np.ones((1, 3)), np.ones((1, 3)))).served
    narrow = of_8_bits(publish_dense(PublishedDense(b""), one_array(np.full((9, BLOCK), 0.1))).served)
    assert ServedWeights.of(narrow).blocks("variable/0/w").shape == (9, 1 + BLOCK)
    cases = {
        "none are served": (b"", update.sent),
        "announces 6 blocks, the network has 1": (small, replace(update.sent, arrays=None)),
        "has 6 blocks, 0 of which the network has": (narrow, replace(update.sent, arrays=None)),
        "bytes of arrays, wanted": (before, replace(update.sent, arrays=b"short")),
        "has keys": (before, replace(update.sent, blocks=with_keys())),
        "cannot be read": (before, replace(update.sent, blocks=b"\1\2\3")),
    }
    for message, (served, change) in cases.items():
        with pytest.raises(DeltaError, match=message):
            dense_after(served, change, b"")


def test_bytes_are_served_as_they_are():
    published = PublishedDense(b"")
    update = published.update(b"weights", Price(), 1.0)
    assert (update.sent, update.served, published.served) == (b"weights",) * 3


def test_exact_weights_are_followed_by_rounded_ones_and_the_other_way_round():
    walk = DenseWalk()
    walk.step()
    exact = pack({name: array for name, array in unpack(walk.packed()).items() if "accumulator" not in name})
    rounded = publish_dense(PublishedDense(exact), walk.trained())
    assert isinstance(rounded.sent, bytes)
    assert rounded.served == publish_dense(PublishedDense(b""), walk.trained()).served
    assert PublishedDense(rounded.served).update(exact, Price(), 1.0).served == exact


def moved(held: np.ndarray, by: np.ndarray) -> TrainedWeights:
    return one_array(held + by, np.ones(held.shape))


def test_a_block_is_sent_once_that_takes_more_off_the_loss_than_its_bytes_cost():
    weights = np.random.default_rng(3).normal(0, 0.3, (2, BLOCK)).astype(np.float32)
    published, dense = PublishedDense(b""), one_array(weights, np.ones((2, BLOCK)))
    price, served = price_of_rounding(dense, 0.02), publish_dense(published, dense).served
    held, step = unpack(served)["variable/0/w"], steps_of(served, "variable/0/w")[0]
    by = np.zeros((2, BLOCK), np.float32)
    by[1] = 2 * step
    dense = moved(held, by)
    worth = 0.5 * dense.blocks.curvature(price.dense_scale)[1] * (by[1] ** 2).sum()
    cost = 1.5 + (0.75 * BLOCK + 2 * 2 * BLOCK) / 8  # a handle, zeros, two significant bits of each difference
    for per_byte, sent in ((1.01 * worth / cost, []), (0.99 * worth / cost, [1])):
        update = PublishedDense(served).update(dense, replace(price, per_byte=per_byte), 1.0)
        assert decode_coded_rows(update.sent.blocks, BLOCK).handles.tolist() == sent
        assert update.loss == pytest.approx(0 if sent else worth, rel=1e-5)
        flushed = PublishedDense(served).update(dense, replace(price, per_byte=per_byte), 1.0, flush=True)
        assert decode_coded_rows(flushed.sent.blocks, BLOCK).handles.tolist() == [1]


def test_the_loss_by_dense_weights_is_that_of_the_errors_that_serving_has():
    walk, published = DenseWalk(), PublishedDense(b"")
    for _ in range(6):
        walk.step()
        dense = walk.trained()
        price = replace(price_of_rounding(dense, 0.05), per_byte=0.01, dense_scale=0.7)
        update = published.update(dense, price, 3.0)
        served, error, effect = unpack(update.served), 0.0, 0.0
        for name, weights in walk.weights.items():
            size = -(-weights.size // BLOCK) * BLOCK
            square = np.resize(np.append(walk.squares[name] - np.float32(0.1), np.zeros(BLOCK)), size)
            square[weights.size :] = 0
            sizes = np.minimum(BLOCK, weights.size - BLOCK * np.arange(size // BLOCK))
            h = np.repeat(square.reshape(-1, BLOCK).sum(axis=1) / sizes, BLOCK)[: weights.size].reshape(weights.shape)
            error += float((h * (served[name].astype(np.float64) - weights) ** 2).sum())
            effect += float((h * weights.astype(np.float64) ** 2).sum())
        assert update.loss == pytest.approx(0.7 * 3.0 * error / effect, rel=1e-4)


def test_held_weights_send_nothing_and_their_loss_grows():
    walk, published = DenseWalk(), PublishedDense(b"")
    walk.step()
    served, losses = publish_dense(published, walk.trained()).served, []
    for _ in range(4):
        walk.step()
        held = published.held(walk.trained(), price_of_rounding(walk.trained(), 0.02), 1.0)
        assert (held.sent.blocks, held.sent.arrays, held.served, published.served) == (b"", None, served, served)
        losses.append(held.loss)
    assert losses[-1] > losses[0] > 0


def test_rounding_reads_the_trained_weights_only():
    walk = DenseWalk()
    before = walk.packed()
    publish_dense(PublishedDense(b""), TrainedWeights(before, CURVATURE))
    assert walk.packed() == before
