"""Invalid input of the served view: an error with what it got for anything but an array of the right dtype and shape.

Keys, table, pooling, sketch, join index and quantizer have the same battery in their own tests.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import product

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.versions.deltas.coded_rows import ChangedRows
from pipeline.versions.deltas.quantizer import payload_bytes
from pipeline.versions.deltas.served_view import NO_HANDLE, ServedView

DIM, ROWS = 4, 3


def good(name: str) -> np.ndarray:
    return {
        "keys": np.arange(ROWS, dtype=np.uint64),
        "removed": np.arange(ROWS, dtype=np.uint64),
        "handles": np.arange(ROWS, dtype=np.uint32),
        "bits": np.full(ROWS, 8, np.uint8),
        "payload": np.zeros(ROWS * payload_bytes(8, DIM), np.uint8),
    }[name]


def change(**odd: object) -> ChangedRows:
    """A change of `ROWS` rows that are new, some arrays of which are odd."""
    none32, none = np.empty(0, np.uint32), np.empty(0, np.bool_)
    rows = ChangedRows(none32, none, good("keys"), good("handles"), good("bits"), good("payload"), good("removed"))
    return rows._replace(**odd)


def misaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    moved = raw[1:].view(array.dtype)
    moved[:] = array
    return moved


ODD: dict[str, Callable[[np.ndarray], object]] = {
    "no array": lambda array: array.tolist(),
    "nothing": lambda array: None,
    "text": lambda array: "0123",
    "bytes": lambda array: array.tobytes(),
    "a scalar": lambda array: array[0],
    "no dimension": lambda array: array[0].reshape(()),
    "a matrix": lambda array: array.reshape(1, -1),
    "a matrix of nothing": lambda array: np.zeros((0, 5), array.dtype),
    "every other element": lambda array: np.repeat(array, 2)[::2],
    "backwards": lambda array: array[::-1],
    "a signed dtype": lambda array: array.astype(array.dtype.name.removeprefix("u")),
    "floats": lambda array: array.astype(np.float64),
    "not even numbers": lambda array: np.full(len(array), np.nan),
    "objects": lambda array: array.astype(object),
    "2^31 elements that are one": lambda array: np.broadcast_to(array[:1], 2**31),
}
WIDE = {
    "the other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "an odd address": misaligned,
}
CALLS: dict[str, tuple[str, Callable[[ServedView, object], object]]] = {
    "put keys": ("keys", lambda view, odd: view.put(odd, good("handles"), good("bits"), good("payload"))),
    "put handles": ("handles", lambda view, odd: view.put(good("keys"), odd, good("bits"), good("payload"))),
    "put bits": ("bits", lambda view, odd: view.put(good("keys"), good("handles"), odd, good("payload"))),
    "put payload": ("payload", lambda view, odd: view.put(good("keys"), good("handles"), good("bits"), odd)),
    "stage handles": ("handles", lambda view, odd: view.stage(change(new_handles=odd))),
    "stage keys": ("keys", lambda view, odd: view.stage(change(new_keys=odd))),
    "stage payload": ("payload", lambda view, odd: view.stage(change(payload=odd))),
    "stage removed": ("removed", lambda view, odd: view.stage(change(removed=odd))),
    "remove": ("keys", lambda view, odd: view.remove(odd)),
    "decode": ("keys", lambda view, odd: view.decode(odd)),
    "bits": ("keys", lambda view, odd: view.bits(odd)),
    "handles": ("keys", lambda view, odd: view.handles(odd)),
    "keys_of": ("handles", lambda view, odd: view.keys_of(odd)),
    "export": ("keys", lambda view, odd: view.export(odd)),
}


@pytest.fixture
def view() -> ServedView:
    view = ServedView(DIM)
    view.put(good("keys"), good("handles"), good("bits"), good("payload"))
    return view


# Not for elements of one byte: they have no byte order and no alignment.
WIDER = [call for call, (name, _) in CALLS.items() if good(name).itemsize > 1]
CASES = [*product(CALLS, ODD), *product(WIDER, WIDE)]


@pytest.mark.parametrize(("call", "odd"), CASES)
def test_odd_arrays_are_refused_by_name_and_change_nothing(view, call, odd):
    name, run = CALLS[call]
    before = view.digest(), len(view), view.memory_bytes
    with pytest.raises(InputError, match=rf"{name}: got .*, wanted {good(name).dtype} \["):
        run(view, (ODD | WIDE)[odd](good(name)))
    assert (view.digest(), len(view), view.memory_bytes) == before


@pytest.mark.parametrize("call", CALLS)
def test_read_only_arrays_are_read(view, call):
    name, run = CALLS[call]
    array = good(name)
    array.flags.writeable = False
    run(view, array)


def test_zero_rows_are_accepted(view):
    before = view.digest()
    none64, none32, none8 = np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.uint8)
    view.put(none64, none32, none8, none8)
    assert view.remove(none64) == 0
    assert view.decode(none64).shape == (0, DIM)
    assert [len(part) for part in (view.bits(none64), view.handles(none64), *view.keys_of(none32))] == [0, 0, 0, 0]
    assert [len(part) for part in view.export(none64)] == [0, 0, 0]
    assert view.digest() == before


@pytest.mark.parametrize("lengths", [(2, 3, 3, 0), (3, 2, 3, 0), (3, 3, 2, 0), (3, 3, 3, 1), (3, 3, 3, -1)])
def test_arrays_of_different_lengths_are_refused(view, lengths):
    keys, handles, bits, more = lengths
    payload = np.zeros(3 * payload_bytes(8, DIM) + more, np.uint8)
    with pytest.raises(InputError, match=r"got .*, wanted "):
        view.put(good("keys")[:keys], good("handles")[:handles], good("bits")[:bits], payload)
    assert len(view) == ROWS


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 5, 7, 9, 15, 17, 31, 33, 64, 255])
def test_an_unknown_precision_is_refused(view, bits):
    with pytest.raises(InputError, match=f"bits: got {bits} at 1, wanted one of"):
        view.put(good("keys"), good("handles"), np.array([8, bits, 8], np.uint8), good("payload"))


@pytest.mark.parametrize("dim", [0, -1, 65_537, 2**31, 2**64, 1.0, 4.5, float("nan"), "4", None, True, [4]])
def test_an_impossible_dim_is_refused(dim):
    with pytest.raises(InputError, match=r"dim: got .*, wanted an integer in 1\.\.65536"):
        ServedView(dim)


@pytest.mark.parametrize("dim", [1, 2, 65_536])
def test_every_precision_is_stored_at_every_dim(dim):
    bits = np.array([4, 8, 16, 32], np.uint8)
    payload = np.zeros(sum(payload_bytes(int(each), dim) for each in bits), np.uint8)
    view, keys = ServedView(dim), np.arange(4, dtype=np.uint64)
    view.put(keys, np.full(4, NO_HANDLE), bits, payload)
    view.put(keys, np.full(4, NO_HANDLE), bits[::-1].copy(), payload)
    assert view.decode(keys).any() == np.False_
    assert view.bits(keys).tolist() == [32, 16, 8, 4]


def test_payloads_of_nan_are_stored_and_decoded_unchanged(view):
    """The view stores what the publisher sent: the delta checks the bytes, the trainer the numbers."""
    key, handle = np.array([9], np.uint64), np.array([9], np.uint32)
    view.put(key, handle, np.array([32], np.uint8), np.full(DIM, np.nan, np.float32).view(np.uint8))
    assert np.isnan(view.decode(key)).all()


def test_random_invalid_calls_never_put_part_of_a_batch():
    """Batches with one error at a random place are put completely or not at all."""
    random = np.random.default_rng(5)
    view, stored = ServedView(1), {}
    for _ in range(300):
        n = int(random.integers(1, 6))
        keys = random.integers(0, 8, n, np.uint64)
        handles = random.integers(0, 8, n, np.uint32)
        bits = random.choice(np.array([4, 8, 16, 32, 5], np.uint8), n, p=[0.24, 0.24, 0.24, 0.24, 0.04])
        payload = np.zeros(sum(payload_bytes(int(b), 1) if b != 5 else 1 for b in bits), np.uint8)
        before = view.digest(), view.keys().tolist()
        try:
            view.put(keys, handles, bits, payload)
        except InputError:
            assert (view.digest(), view.keys().tolist()) == before
        else:
            stored |= dict(zip(keys.tolist(), bits.tolist(), strict=True))
            assert view.bits(np.array(sorted(stored), np.uint64)).tolist() == [stored[key] for key in sorted(stored)]
        with suppress(KeyError):
            removed = int(random.integers(0, 8))
            stored.pop(removed)
            assert view.remove(np.array([removed], np.uint64)) == 1
