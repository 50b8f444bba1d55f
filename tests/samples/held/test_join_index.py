"""The join's hash index against a dict, through growth, removal and shrinking."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.samples.held.index import NONE, JoinIndex


def ids_of(numbers, spread):
    """Ids that are hashes, or patterns that a careless hash would pile up in one place."""
    numbers = np.asarray(numbers, np.uint64)
    with np.errstate(over="ignore"):
        columns = {
            "hashed": (numbers * np.uint64(0x9E3779B97F4A7C15), numbers * np.uint64(0xC2B2AE3D27D4EB4F)),
            "small": (numbers, np.zeros_like(numbers)),
            "second half only": (np.zeros_like(numbers), numbers),
            "high bits only": (numbers << np.uint64(52), numbers << np.uint64(52)),
        }[spread]
    return np.ascontiguousarray(np.stack(columns, axis=1))


@pytest.mark.parametrize("spread", ["hashed", "small", "second half only", "high bits only"])
def test_random_operations_agree_with_a_dict(spread):
    rng = np.random.default_rng(11)
    index, model = JoinIndex(), {}
    for step in range(120):
        numbers = rng.integers(0, 3_000, rng.integers(0, 200))
        ids = ids_of(numbers, spread)
        if step % 3 == 0:
            removed = sum(model.pop(n, None) is not None for n in numbers.tolist())
            assert index.remove(ids) == removed
        else:
            places = rng.integers(0, 2**64 - 1, len(numbers), np.uint64)
            wanted = []
            for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
                wanted.append(model.get(number, int(NONE)))
                model.setdefault(number, place)
            assert index.insert(ids, places).tolist() == wanted
        assert len(index) == len(model)
        everything = np.arange(3_000)
        assert index.match(ids_of(everything, spread)).tolist() == [
            model.get(n, int(NONE)) for n in everything.tolist()
        ]


@pytest.mark.parametrize("spread", ["hashed", "small", "second half only", "high bits only"])
@pytest.mark.parametrize("first_seed", range(0, 400, 100))
def test_a_hundred_seeds_of_small_batches_agree_with_a_dict(spread, first_seed):
    for seed in range(first_seed, first_seed + 100):
        rng = np.random.default_rng(seed)
        index, model, keys = JoinIndex(), {}, int(rng.integers(1, 80))
        for _ in range(12):
            numbers = rng.integers(0, keys, rng.integers(0, 60))
            one_step(rng, index, model, numbers, ids_of(numbers, spread))
            assert len(index) == len(model), f"seed {seed}"
        everything = np.arange(keys)
        wanted = [model.get(n, int(NONE)) for n in everything.tolist()]
        assert index.match(ids_of(everything, spread)).tolist() == wanted, f"seed {seed}"


def one_step(rng, index, model, numbers, ids):
    """One random operation on both, which must return the same."""
    what = rng.integers(4)
    if what == 0:
        assert index.remove(ids) == sum(model.pop(n, None) is not None for n in numbers.tolist())
    elif what == 1:
        bucket = int(rng.integers(0, 4))
        removed = [number for number, place in model.items() if place >> 32 == bucket]
        assert index.remove_bucket(bucket) == len(removed)
        for number in removed:
            del model[number]
    else:
        places = rng.integers(0, 3, len(numbers), np.uint64) << np.uint64(32) | rng.integers(0, 9, 1, np.uint64)
        wanted = []
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            wanted.append(model.get(number, int(NONE)))
            model.setdefault(number, place)
        assert index.insert(ids, places).tolist() == wanted


def test_an_id_twice_in_one_batch_finds_its_first_place():
    index = JoinIndex()
    ids = np.array([[1, 2], [1, 2], [2, 1]], np.uint64)
    assert index.insert(ids, np.array([5, 6, 7], np.uint64)).tolist() == [int(NONE), 5, int(NONE)]
    assert index.match(ids).tolist() == [5, 5, 7]


def test_both_halves_of_an_id_count():
    index = JoinIndex()
    index.insert(np.array([[1, 2]], np.uint64), np.array([5], np.uint64))
    assert (index.match(np.array([[1, 3], [0, 2], [2, 1]], np.uint64)) == NONE).all()


def test_zero_and_all_ones_are_valid_ids():
    index = JoinIndex()
    ids = np.array([[0, 0], [2**64 - 1, 2**64 - 1]], np.uint64)
    assert (index.match(ids) == NONE).all()
    index.insert(ids, np.array([0, 2**64 - 2], np.uint64))
    assert index.match(ids).tolist() == [0, 2**64 - 2]


def test_the_number_of_a_removed_bucket_may_be_used_again():
    index, ids = JoinIndex(), ids_of(np.arange(10), "hashed")
    index.insert(ids, np.arange(10, dtype=np.uint64))
    assert (index.remove_bucket(0), index.remove_bucket(0), len(index)) == (10, 0, 0)
    index.insert(ids[:3], np.array([7, 8, 9], np.uint64))
    assert len(index) == 3
    assert index.match(ids).tolist() == [7, 8, 9] + [int(NONE)] * 7


def test_an_id_of_a_removed_bucket_is_inserted_again_and_other_ids_are_still_found():
    index, ids = JoinIndex(), ids_of(np.arange(8), "second half only")
    places = np.arange(8, dtype=np.uint64) % np.uint64(2) << np.uint64(32)
    index.insert(ids, places)
    index.remove_bucket(1)
    assert (index.insert(ids, places + np.uint64(5)) == np.where(places == 0, places, NONE)).all()
    assert index.match(ids).tolist() == [0, (1 << 32) + 5] * 4


def test_memory_is_bounded_by_live_ids_however_many_buckets_are_removed():
    index, rows = JoinIndex(), 1_000
    for bucket in range(100):
        ids = ids_of(np.arange(bucket * rows, (bucket + 1) * rows), "hashed")
        index.insert(ids, np.uint64(bucket << 32) | np.arange(rows, dtype=np.uint64))
        assert index.memory_bytes <= 24 * 2 * (5 * rows * 8 // 5)
        if bucket >= 3:
            assert index.remove_bucket(bucket - 3) == rows
            assert len(index) == 3 * rows


def test_removing_twice_counts_once():
    index = JoinIndex()
    ids = np.array([[1, 2]], np.uint64)
    index.insert(ids, np.array([5], np.uint64))
    assert index.remove(np.repeat(ids, 2, axis=0)) == 1
    assert index.remove(ids) == 0
    assert len(index) == 0


def test_memory_is_bounded_by_live_ids_however_many_are_removed():
    index, held = JoinIndex(), 1_000
    for start in range(0, 100_000, held):
        ids = ids_of(np.arange(start, start + held), "hashed")
        index.insert(ids, np.zeros(held, np.uint64))
        assert index.memory_bytes <= 24 * 2 * (held * 4 // 3 + 1)
        assert index.remove(ids) == held
    assert index.memory_bytes == JoinIndex().memory_bytes


def test_empty_batches_do_nothing():
    index, none = JoinIndex(), np.empty((0, 2), np.uint64)
    assert index.insert(none, np.empty(0, np.uint64)).shape == (0,)
    assert index.match(none).shape == (0,)
    assert index.remove(none) == 0


BAD_IDS = {
    "dtype": (np.zeros((2, 2), np.int64), r"ids: got int64 \[2, 2\], wanted uint64 \[n, 2\]"),
    "shape": (np.zeros((2, 3), np.uint64), r"ids: got uint64 \[2, 3\], wanted uint64 \[n, 2\]"),
    "dimensions": (np.zeros(4, np.uint64), r"ids: got uint64 \[4\], wanted uint64 \[n, 2\]"),
    "order": (np.asfortranarray(np.zeros((2, 2), np.uint64)), "not C-contiguous, wanted"),
    "type": ([[1, 2]], "ids: got list, wanted uint64"),
    "none": (None, "ids: got NoneType, wanted uint64"),
    "byte order": (np.zeros((2, 2), ">u8"), r"ids: got >u8|ids: got uint64"),
    "negative strides": (np.zeros((2, 2), np.uint64)[::-1], "not C-contiguous, wanted"),
    "misaligned": (np.frombuffer(bytes(33), np.uint8)[1:].view(np.uint64).reshape(2, 2), "ids: got uint64"),
    "rows of no bytes": (np.broadcast_to(np.uint64(1), (2**31, 2)), "not C-contiguous, wanted"),
}


@pytest.mark.parametrize("name", BAD_IDS)
def test_bad_ids_are_refused(name):
    ids, message = BAD_IDS[name]
    index = JoinIndex()
    places = np.zeros(2, np.uint64)
    calls = (index.match, index.remove, lambda i: index.insert(i, places))
    for call in calls:
        with pytest.raises(InputError, match=message):
            call(ids)


def test_bad_places_are_refused():
    ids = np.zeros((2, 2), np.uint64)
    for places in (np.zeros(2, np.int64), np.zeros(4, np.uint64)[::2], np.zeros((2, 1), np.uint64), [0, 0]):
        with pytest.raises(InputError, match=r"places: got .*, wanted uint64 \[2\]"):
            JoinIndex().insert(ids, places)
    with pytest.raises(InputError, match=r"places: got uint64 \[2147483648\] not C-contiguous, wanted uint64 \[2\]"):
        JoinIndex().insert(ids, np.broadcast_to(np.uint64(1), 2**31))
    with pytest.raises(InputError, match=r"places: got uint64 \[3\], wanted uint64 \[2\]"):
        JoinIndex().insert(ids, np.zeros(3, np.uint64))
    with pytest.raises(InputError, match="places: got 18446744073709551615 at 1, wanted less"):
        JoinIndex().insert(ids, np.array([0, NONE], np.uint64))


@pytest.mark.parametrize("bucket", [-1, 2**32, 1.0, None, True])
def test_bad_buckets_are_refused(bucket):
    with pytest.raises(InputError, match=r"bucket: got .*, wanted an integer in 0..4294967295"):
        JoinIndex().remove_bucket(bucket)


def test_reserved_memory_is_not_allocated_again_and_entries_remain():
    index, ids = JoinIndex(), ids_of(np.arange(1_000), "hashed")
    index.insert(ids[:5], np.arange(5, dtype=np.uint64))
    index.reserve(1_000)
    reserved = index.memory_bytes
    index.insert(ids, np.arange(1_000, dtype=np.uint64))
    assert index.memory_bytes == reserved
    index.reserve(10)
    assert index.memory_bytes == reserved
    assert index.match(ids).tolist() == list(range(1_000))


@pytest.mark.parametrize("n", [-1, 2**31 + 1, 1.0, None])
def test_an_invalid_reservation_is_refused(n):
    with pytest.raises(InputError, match=r"n: got .*, wanted an integer in 0..2147483648"):
        JoinIndex().reserve(n)
