"""The served view against a dict: payloads, handles and digest after every change; readers during writes."""

import threading

import numpy as np
import pytest
import xxhash

from pipeline.errors import InputError
from pipeline.versions.deltas.coded_rows import ChangedRows
from pipeline.versions.deltas.quantizer import PRECISIONS, decode, encode, payload_bytes
from pipeline.versions.deltas.served_view import NO_HANDLE, ServedView

DIM = 5


def keys_of(*numbers):
    return np.array(numbers, np.uint64)


def handles_of(*numbers):
    return np.array(numbers, np.uint32)


def rows_of(keys, seed=1, bits=None):
    """Bits and payload of random rows for these keys."""
    rng = np.random.default_rng(seed)
    bits = rng.choice(PRECISIONS, len(keys)).astype(np.uint8) if bits is None else np.full(len(keys), bits, np.uint8)
    payload, _ = encode(rng.standard_normal((len(keys), DIM)).astype(np.float32), bits)
    return bits, payload


def filled(*numbers, seed=1):
    """A view of these keys with their index as handle, and the rows put."""
    view, keys = ServedView(DIM), keys_of(*numbers)
    bits, payload = rows_of(keys, seed)
    view.put(keys, np.arange(len(keys), dtype=np.uint32), bits, payload)
    return view, keys, bits, payload


class Model:
    """The same, as a dict from key to (handle, bits, payload)."""

    def __init__(self):
        self.rows = {}

    def put(self, keys, handles, bits, payload):
        at = 0
        for key, handle, precision in zip(keys.tolist(), handles.tolist(), bits.tolist(), strict=True):
            size = payload_bytes(precision, DIM)
            self.rows[key] = (handle, precision, payload[at : at + size].tobytes())
            at += size

    def remove(self, keys):
        return sum(self.rows.pop(key, None) is not None for key in keys.tolist())

    def digest(self):
        return sum(xxhash.xxh64_intdigest(bytes([b]) + p, key) for key, (_, b, p) in self.rows.items()) % 2**64

    def export(self, keys):
        rows = [self.rows.get(key, (int(NO_HANDLE), 0, b"")) for key in keys.tolist()]
        return [r[0] for r in rows], [r[1] for r in rows], b"".join(r[2] for r in rows)

    def value(self, key):
        if key not in self.rows:
            return np.zeros(DIM, np.float32)
        _, bits, payload = self.rows[key]
        return decode(np.frombuffer(payload, np.uint8), np.array([bits], np.uint8), DIM)[0]


@pytest.mark.parametrize("by_handle", [True, False])
def test_random_operations_agree_with_a_dict(by_handle):
    rng = np.random.default_rng(21)
    view, model, everything = ServedView(DIM, by_handle=by_handle), Model(), np.arange(400, dtype=np.uint64)
    for step in range(150):
        keys = rng.integers(0, 400, rng.integers(0, 60)).astype(np.uint64)
        if step % 3 == 2:
            assert view.remove(keys) == model.remove(keys)
        else:
            handles = (keys * 3).astype(np.uint32)  # one per key, in any order, repeated for repeated keys
            bits, payload = rows_of(keys, seed=step)
            view.put(keys, handles, bits, payload)
            model.put(keys, handles, bits, payload)
        agree(view, model, everything)


def agree(view, model, everything):
    handles, bits, payload = view.export(everything)
    assert (handles.tolist(), bits.tolist(), payload.tobytes()) == model.export(everything)
    assert (view.handles(everything) == handles).all()
    assert (view.bits(everything) == bits).all()
    assert (view.decode(everything) == np.stack([model.value(key) for key in everything.tolist()])).all()
    keys, known = view.keys_of(np.arange(1_200, dtype=np.uint32))
    wanted = {handle: key for key, (handle, _, _) in model.rows.items()}
    assert dict(zip(np.flatnonzero(known).tolist(), keys[known].tolist(), strict=True)) == wanted
    assert view.keys().tolist() == sorted(model.rows)
    assert len(view) == len(model.rows)
    assert view.payload_total == len(payload)
    assert view.digest() == model.digest()


def test_an_empty_view_has_no_rows():
    view, keys = ServedView(DIM), keys_of(0, 1, 2**64 - 1)
    assert (view.decode(keys) == 0).all()
    assert view.bits(keys).tolist() == [0, 0, 0]
    assert (view.handles(keys) == NO_HANDLE).all()
    assert [part.tolist() for part in view.keys_of(handles_of(0, NO_HANDLE))] == [[0, 0], [False, False]]
    assert view.keys().dtype == np.uint64
    assert (len(view), view.payload_total, view.digest(), view.keys().tolist()) == (0, 0, 0, [])
    assert [part.tolist() for part in view.export(keys_of())] == [[], [], []]


def test_golden_value_of_the_digest():
    view = ServedView(2)
    payload, _ = encode(np.array([[0.5, -1.0], [3.0, 4.0]], np.float32), np.array([16, 4], np.uint8))
    view.put(keys_of(7, 2**63), handles_of(0, 1), np.array([16, 4], np.uint8), payload)
    assert view.digest() == 10518365578804463874


def test_the_digest_depends_only_on_the_state():
    view, keys, bits, payload = filled(5, 1, 9, 3)
    other, *_ = filled(9, 5, 77, seed=2)
    other.remove(keys_of(77, 9, 5))
    other.put(keys, handles_of(10, 11, 12, 13), bits, payload)
    assert other.digest() == view.digest()


def test_the_digest_depends_on_key_bits_and_payload():
    digests = set()
    for key, bits, byte in [(1, 8, 0), (2, 8, 0), (1, 8, 1), (1, 16, 0)]:
        view = ServedView(DIM)
        payload = np.full(payload_bytes(bits, DIM), byte, np.uint8)
        view.put(keys_of(key), handles_of(0), np.array([bits], np.uint8), payload)
        digests.add(view.digest())
    assert len(digests) == 4


def test_exported_rows_can_be_put_into_another_view():
    view, keys, *_ = filled(5, 1, 9, 3)
    other = ServedView(DIM)
    other.put(keys, *view.export(keys))
    assert other.digest() == view.digest()
    assert (other.handles(keys) == view.handles(keys)).all()


def test_a_new_precision_replaces_the_old():
    view, keys = ServedView(DIM), keys_of(5)
    for bits in (4, 32, 8, 16, 4):
        view.put(keys, handles_of(0), *rows_of(keys, bits=bits))
        assert view.bits(keys).tolist() == [bits]
        assert (len(view), view.payload_total) == (1, payload_bytes(bits, DIM))
        assert view.keys_of(handles_of(0))[0].tolist() == [5]


def test_a_new_handle_replaces_the_old():
    view, keys, bits, payload = filled(5)
    view.put(keys, handles_of(8), bits, payload)
    assert view.keys_of(handles_of(0, 8))[1].tolist() == [False, True]


def test_keys_without_a_handle_are_accepted():
    view, keys = ServedView(DIM), keys_of(1, 2)
    view.put(keys, handles_of(NO_HANDLE, NO_HANDLE), *rows_of(keys))
    assert len(view) == 2
    assert view.keys_of(handles_of(NO_HANDLE))[1].tolist() == [False]


@pytest.mark.parametrize(
    ("keys", "handles"),
    [((6,), (0,)), ((8, 6), (7, 1)), ((6, 7), (4, 4)), ((6, 7, 8), (9, 2, 9)), ((5, 6), (3, 0))],
)
def test_a_handle_of_another_key_is_refused_and_nothing_changes(keys, handles):
    view, *_ = filled(5, 1)
    before, keys = view.digest(), keys_of(*keys)
    with pytest.raises(InputError, match=r"handle \d+ of key \d+ belongs to another key, wanted an unused one"):
        view.put(keys, handles_of(*handles), *rows_of(keys, seed=3))
    assert (view.digest(), view.keys().tolist()) == (before, [1, 5])
    assert view.handles(keys_of(5, 1)).tolist() == [0, 1]


@pytest.mark.parametrize("handles", [(4, 4, 6), (7, 9, 7)])
def test_a_view_without_handle_index_refuses_two_new_keys_with_one_handle(handles):
    view, keys = ServedView(DIM, by_handle=False), keys_of(6, 7, 8)
    with pytest.raises(InputError, match=r"handle \d of key \d belongs to another key"):
        view.put(keys, handles_of(*handles), *rows_of(keys))
    assert len(view) == 0


def test_a_view_without_handle_index_takes_four_bytes_less_per_row():
    keys = np.random.default_rng(1).integers(0, 2**64, 300_000, np.uint64)
    rows = np.full(len(keys), 4, np.uint8), np.zeros(len(keys) * payload_bytes(4, 16), np.uint8)
    sizes = []
    for by_handle in (True, False):
        view = ServedView(16, by_handle=by_handle)
        view.put(keys, np.arange(len(keys), dtype=np.uint32), *rows)
        sizes.append(view.memory_bytes / len(keys))
    assert sizes[0] - sizes[1] == pytest.approx(4.25, abs=0.1)


def change_of(keys, handles, bits, payload, removed):
    """A change that sends every row with its key."""
    return ChangedRows(np.empty(0, np.uint32), np.empty(0, np.bool_), keys, handles, bits, payload, removed)


def digest_after(view, *change):
    return view.stage(change_of(*change)).digest


def test_digest_after_predicts_the_digest_and_changes_nothing():
    rng = np.random.default_rng(22)
    view, *_ = filled(*range(100))
    for step in range(60):
        keys, removed = (rng.integers(0, 200, rng.integers(0, 40)).astype(np.uint64) for _ in range(2))
        rows = keys, keys.astype(np.uint32), *rows_of(keys, seed=step)
        before, predicted = view.digest(), digest_after(view, *rows, removed)
        assert view.digest() == before
        view.remove(removed)
        view.put(*rows)
        assert view.digest() == predicted


def test_digest_after_predicts_the_digest_of_large_batches_with_few_repeated_keys():
    rng = np.random.default_rng(23)
    known = rng.integers(0, 2**64, 4_000, np.uint64)
    view = ServedView(DIM)
    view.put(known, np.arange(len(known), dtype=np.uint32), *rows_of(known))
    for step, repeated in enumerate((0, 1, 50)):
        fresh = rng.integers(0, 2**64, 500, np.uint64)
        keys = rng.permutation(np.concatenate([known[:3_000], known[:repeated], fresh, fresh[:repeated]]))
        _, handles = np.unique(np.concatenate([known, keys]), return_inverse=True)
        view.remove(known)
        view.put(known, handles[: len(known)].astype(np.uint32), *rows_of(known, seed=step))
        removed = np.concatenate([known[2_900:3_100], known[2_900:2_901], rng.integers(0, 2**64, 9, np.uint64)])
        rows = keys, handles[len(known) :].astype(np.uint32), *rows_of(keys, seed=step + 9)
        predicted = digest_after(view, *rows, removed)
        view.remove(removed)
        view.put(*rows)
        assert view.digest() == predicted
        view.remove(fresh)


def test_digest_after_refuses_the_handle_of_a_row_that_keeps_it():
    view, *_ = filled(5, 1)
    keys = keys_of(5, 6)
    with pytest.raises(InputError, match=r"handle 0 of key \d belongs to another key"):
        digest_after(view, keys, handles_of(0, 0), *rows_of(keys), keys_of())
    rows = keys_of(6), handles_of(0), *rows_of(keys_of(6))
    predicted = digest_after(view, *rows, keys_of(5))
    view.remove(keys_of(5))
    view.put(*rows)
    assert view.digest() == predicted


def test_digest_after_refuses_two_keys_with_one_handle():
    view, keys = ServedView(DIM), keys_of(6, 7)
    with pytest.raises(InputError, match="handle 3 of key 7 belongs to another key"):
        digest_after(view, keys, handles_of(3, 3), *rows_of(keys), keys_of())


def random_change(rng, view, repeated):
    """Known rows, some as differences, new rows and removed keys; with `repeated`, some keys occur twice."""
    known = view.keys()[rng.random(len(view)) < 0.3]
    known = np.concatenate([known, known[: 2 * repeated]])
    fresh = rng.permutation(rng.integers(1_000, 10**6, 12).astype(np.uint64))
    fresh = np.concatenate([fresh, fresh[:repeated]])
    removed = np.setdiff1d(view.keys()[rng.random(len(view)) < 0.2], known[2 * repeated :])
    bits, payload = rows_of(np.concatenate([known, fresh]), seed=int(rng.integers(10**9)))
    stored = view.bits(known)
    relative = (rng.random(len(known)) < 0.5) & (stored == bits[: len(known)]) & (stored != 32)
    if repeated:  # a difference to a row that is removed first, or sent twice, has no meaning
        relative[:] = False
    handles = (2_000_000 + np.unique(fresh, return_inverse=True)[1]).astype(np.uint32)
    return known, ChangedRows(view.handles(known), relative, fresh, handles, bits, payload, removed.astype(np.uint64))


@pytest.mark.parametrize("repeated", [0, 1])
def test_a_staged_change_ends_as_removal_and_put_of_the_absolute_rows(repeated):
    rng = np.random.default_rng(24 + repeated)
    for _ in range(40):
        keys = rng.choice(900, 80, replace=False).astype(np.uint64)
        bits, payload = rows_of(keys, seed=int(rng.integers(10**9)))
        view, other = ServedView(DIM), ServedView(DIM)
        for each in (view, other):
            each.put(keys, keys.astype(np.uint32), bits, payload)
        known, change = random_change(rng, view, repeated)
        before = view.digest()
        staged = view.stage(change)
        assert view.digest() == before
        sums = absolute(view, known, change)
        view.apply(staged)
        other.remove(change.removed)
        handles = np.concatenate([change.handles, change.new_handles])
        other.put(np.concatenate([known, change.new_keys]), handles, change.bits, sums)
        every = other.keys()
        assert view.keys().tolist() == every.tolist()
        assert view.digest() == other.digest() == staged.digest
        assert [each.tobytes() for each in view.export(every)] == [each.tobytes() for each in other.export(every)]
        assert view.payload_total == other.payload_total


def absolute(view, known, change):
    """The payloads of a change with the stored integers added in NumPy."""
    starts, parts = np.cumsum([0, *(payload_bytes(int(b), DIM) for b in change.bits)]), []
    for i, bits in enumerate(change.bits):
        part = change.payload[starts[i] : starts[i + 1]].copy()
        if i < len(known) and change.relative[i]:
            stored, dtype = view.export(known[i : i + 1])[2], np.int16 if bits == 16 else np.int8
            part[0] = stored[0]
            part[1:].view(dtype)[:] += stored[1:].view(dtype)
        parts.append(part)
    return np.concatenate(parts)


def test_a_change_that_was_staged_before_another_is_refused():
    view, *_ = filled(5, 1)
    keys = keys_of(6)
    staged = view.stage(change_of(keys, handles_of(7), *rows_of(keys), keys_of()))
    view.remove(keys_of(5))
    before = view.digest()
    with pytest.raises(InputError, match="the view has changed since the rows were staged"):
        view.apply(staged)
    assert (view.digest(), len(view)) == (before, 1)


def test_a_staged_row_with_the_handle_of_another_key_is_refused():
    view, *_ = filled(5, 1)
    keys = keys_of(6)
    staged = view.stage(change_of(keys, handles_of(1), *rows_of(keys), keys_of()))
    before = view.digest()
    with pytest.raises(InputError, match="or has their handles"):
        view.apply(staged)
    assert view.digest() == before


def test_a_handle_is_free_again_after_its_key_was_removed():
    view, *_ = filled(5)
    assert view.remove(keys_of(5, 5, 4)) == 1
    view.put(keys_of(6), handles_of(0), *rows_of(keys_of(6)))
    assert view.keys_of(handles_of(0))[0].tolist() == [6]


def test_sparse_handles_take_little_more_memory():
    view, keys = ServedView(DIM), keys_of(1, 2, 3, 4)
    handles = handles_of(2**32 - 2, 2**14, 0, 2**31)
    view.put(keys, handles, *rows_of(keys))
    assert view.keys_of(handles)[0].tolist() == keys.tolist()
    assert not view.keys_of(handles_of(2**32 - 3, 2**14 - 1, 1, 2**31 + 1))[1].any()
    assert view.memory_bytes < 4 * 2**20


def test_a_row_of_four_bits_takes_little_more_than_key_handle_and_payload():
    view, n = ServedView(dim=16), 300_000
    keys = np.random.default_rng(5).permutation(n).astype(np.uint64)
    view.put(keys, np.arange(n, dtype=np.uint32), np.full(n, 4, np.uint8), np.zeros(n * 17, np.uint8))
    indexes_and_pages = 4.25 + 12 + 4 * 2**21 / n
    assert view.memory_bytes / n < 8 + 4 + 17 + 3 + indexes_and_pages  # cells are multiples of four bytes


def test_removed_handles_take_almost_no_memory():
    view, alive = ServedView(dim=1), 1_000
    payload, bits = np.zeros(alive * 3, np.uint8), np.full(alive, 16, np.uint8)
    for generation in range(200):
        keys = np.arange(alive, dtype=np.uint64) + np.uint64(generation * alive)
        view.put(keys, keys.astype(np.uint32), bits, payload)
        if generation == 0:
            once = view.memory_bytes
        view.remove(keys)
    assert view.memory_bytes < once + 200 * alive


def test_cells_are_reused():
    view, keys = ServedView(DIM), np.arange(3_000, dtype=np.uint64)
    handles = keys.astype(np.uint32)
    view.put(keys, handles, *rows_of(keys))
    once = view.memory_bytes
    for seed in range(5):
        view.remove(keys)
        view.put(keys, handles, *rows_of(keys))
        assert view.memory_bytes <= once * 1.1, seed


def test_readers_during_a_write_see_complete_batches():
    view, keys = ServedView(DIM), np.arange(2_000, dtype=np.uint64)
    batches = []
    for value, bits in enumerate((32, 16, 32, 8), start=1):
        precisions = np.full(len(keys), bits, np.uint8)
        batches.append((precisions, encode(np.full((len(keys), DIM), value, np.float32), precisions)[0]))
    handles, done, torn = keys.astype(np.uint32), threading.Event(), []
    view.put(keys, handles, *batches[0])

    def read():
        while not done.is_set():
            rows = view.decode(keys)
            if (rows != rows[0, 0]).any() or rows[0, 0] not in (1, 2, 3, 4):
                torn.append(rows)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(60):
        view.put(keys, handles, *batches[turn % len(batches)])
    done.set()
    for reader in readers:
        reader.join()
    assert not torn


def test_wrong_arrays_are_refused():
    view, keys, bits, payload = filled(5, 1)
    handles = handles_of(0, 1)
    for call in (view.remove, view.decode, view.bits, view.handles, view.export):
        with pytest.raises(InputError, match=r"keys: got int64 \[2\], wanted uint64 \[n\]"):
            call(keys.astype(np.int64))
    with pytest.raises(InputError, match=r"handles: got uint64 \[2\], wanted uint32 \[n\]"):
        view.keys_of(keys)
    with pytest.raises(InputError, match=r"handles: got uint32 \[1\], wanted uint32 \[2\]"):
        view.put(keys, handles[:1], bits, payload)
    with pytest.raises(InputError, match="payload: got uint8"):
        view.put(keys, handles, bits, payload[:-1].copy())
    with pytest.raises(InputError, match="bits: got 7 at 1, wanted one of"):
        view.put(keys, handles, np.array([4, 7], np.uint8), payload)
    with pytest.raises(InputError, match="dim: got 0, wanted an integer in"):
        ServedView(0)


def test_rows_are_compared_with_served_values_or_zeros():
    view = ServedView(dim=2)
    held = np.float32([[3, 4]])
    view.put(keys_of(7), handles_of(0), np.array([32], np.uint8), held.view(np.uint8).reshape(-1))
    packed = np.zeros(3, [("weights", "<f4", 2), ("count", "<u4")])
    packed["weights"] = [[3, 4], [0, 0], [6, 8]]
    apart = view.compare(keys_of(7, 7, 8), packed["weights"])
    assert apart.moved.tolist() == [0, 5, 10]
    assert apart.length.tolist() == [5, 0, 10]
    assert apart.bits.tolist() == [32, 32, 0]
    assert apart.differs.tolist() == [False, True, True]


def test_a_difference_whose_square_underflows_still_differs():
    view = ServedView(dim=1)
    tiny = np.float32([[1e-30]])
    assert view.compare(keys_of(7), tiny).moved.tolist() == [0]
    assert view.compare(keys_of(7), tiny).differs.tolist() == [True]


def test_lookup_equals_decode_bits_and_handles():
    view, random = ServedView(dim=8), np.random.default_rng(1)
    rows, bits = random.normal(size=(50, 8)).astype(np.float32), random.choice(np.uint8([4, 8, 16, 32]), 50)
    view.put(np.arange(50, dtype=np.uint64), np.arange(50, dtype=np.uint32), bits, encode(rows, bits)[0])
    keys = np.arange(25, 75, dtype=np.uint64)
    held, held_bits, handles = view.lookup(keys)
    assert np.array_equal(held, view.decode(keys))
    assert np.array_equal(held_bits, view.bits(keys))
    assert np.array_equal(handles, view.handles(keys))


def test_rows_with_gaps_inside_are_refused():
    view = ServedView(dim=2)
    for rows in (np.zeros((1, 4), np.float32)[:, ::2], np.zeros((1, 3), np.float32), np.zeros((1, 2))):
        with pytest.raises(InputError, match=r"rows: got .*, wanted float32 \[1, 2\]"):
            view.compare(keys_of(7), rows)
