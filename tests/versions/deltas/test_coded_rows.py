"""The coded rows of a delta: every row survives, in one order, close to its entropy; invalid bytes and input."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline.errors import DamagedError, InputError
from pipeline.versions.deltas.coded_rows import (
    ChangedRows,
    announced_rows,
    code_rows,
    decode_coded_rows,
    reorder_payload,
)
from pipeline.versions.deltas.quantizer import PRECISIONS, payload_offsets


def valid_payload(random, bits, relative, dim):
    """Any bytes, except that a difference has exponent 0."""
    offsets = payload_offsets(bits, dim)
    payload = random.integers(0, 256, int(offsets[-1]), np.uint8)
    payload[offsets[:-1][: len(relative)][relative]] = 0
    return payload


def changed_rows(known, new, removed, dim, seed=0, precisions=PRECISIONS):
    random = np.random.default_rng([seed, known, new])
    bits = random.choice(np.uint8(precisions), known + new)
    relative = (random.random(known) < 0.7) & (bits[:known] < 32)
    handles = random.permutation(70_000)[: known + new].astype(np.uint32)
    keys = random.integers(0, 2**64, new + removed, np.uint64)
    payload = valid_payload(random, bits, relative, dim)
    return ChangedRows(handles[:known], relative, keys[:new], handles[known:], bits, payload, keys[new:])


def listed(rows, dim):
    """Known and new rows as sets of (handle, key or None, relative, bits, payload bytes), and the removed keys."""
    starts = payload_offsets(rows.bits, dim)
    pieces = [rows.payload[a:b].tobytes() for a, b in pairwise(starts)]
    k = len(rows.handles)
    known = zip(rows.handles.tolist(), rows.relative.tolist(), rows.bits[:k].tolist(), pieces[:k], strict=True)
    new = zip(rows.new_handles.tolist(), rows.new_keys.tolist(), rows.bits[k:].tolist(), pieces[k:], strict=True)
    return sorted(known), sorted(new), sorted(rows.removed.tolist())


@pytest.mark.parametrize("dim", [1, 3, 16])
@pytest.mark.parametrize(("known", "new", "removed"), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (200, 0, 9), (300, 100, 0)])
def test_every_row_and_removed_key_survives(dim, known, new, removed):
    for precisions in (PRECISIONS, (8,)):
        rows = changed_rows(known, new, removed, dim, precisions=precisions)
        decoded = decode_coded_rows(code_rows(rows, dim), dim)
        assert listed(decoded, dim) == listed(rows, dim)
        assert [part.dtype for part in decoded] == [part.dtype for part in rows]


def test_the_order_of_rows_does_not_change_the_bytes():
    rows = changed_rows(200, 100, 20, 5)
    coded = code_rows(rows, 5)
    assert code_rows(decode_coded_rows(coded, 5), 5) == coded
    assert code_rows(rows._replace(removed=rows.removed[::-1].copy()), 5) == coded


def test_no_rows_give_no_bytes():
    nothing = changed_rows(0, 0, 0, 4)
    assert code_rows(nothing, 4) == b""
    assert listed(decode_coded_rows(b"", 4), 4) == ([], [], [])


def test_extreme_keys_handles_and_integers_survive():
    most32, most64 = 2**32 - 2, 2**64 - 1
    bits = np.uint8([8, 8, 16, 16, 8, 32])
    payload = np.concatenate([
        np.uint8([0, 0x80, 0x7F]), np.uint8([0x80, 0, 0xFF]), np.uint8([0, 0, 0x80, 0xFF, 0x7F]),
        np.uint8([0x7F, 1, 0, 0xFF, 0xFF]), np.uint8([1, 2, 3]), np.float32([3e38, -0.0]).view(np.uint8),
    ])  # fmt: skip
    rows = ChangedRows(
        np.uint32([0, most32, 5, most32 - 1]), np.bool_([True, False, True, False]), np.uint64([0, most64]),
        np.uint32([most32, 0]), bits, payload, np.uint64([0, 1, most64]),
    )  # fmt: skip
    assert listed(decode_coded_rows(code_rows(rows, 2), 2), 2) == listed(rows, 2)


def entropy_bits(values):
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


@pytest.mark.parametrize("scale", [0.2, 0.7, 2, 10, 40])
def test_differences_cost_about_their_entropy(scale):
    n, dim, random = 3_000, 16, np.random.default_rng(1)
    mantissas = np.clip(np.rint(random.laplace(0, scale, (n, dim))), -127, 127).astype(np.int8)
    payload = np.concatenate([np.zeros((n, 1), np.int8), mantissas], axis=1).view(np.uint8).ravel()
    handles = np.sort(random.choice(10 * n, n, replace=False)).astype(np.uint32)
    none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
    rows = ChangedRows(handles, np.ones(n, np.bool_), none64, none32, np.full(n, 4, np.uint8), payload, none64)
    # A handle among ten: a gap of entropy 4.7 bits.
    ideal = n * (dim * entropy_bits(mantissas) + 4.7) / 8
    assert len(code_rows(rows, dim)) < 1.2 * ideal


def test_new_keys_cost_less_than_eight_bytes():
    n, random = 4_000, np.random.default_rng(2)
    keys = np.sort(random.integers(0, 2**64, n, np.uint64))
    none8, none32, none64 = np.empty(0, np.uint8), np.empty(0, np.uint32), np.empty(0, np.uint64)
    rows = ChangedRows(none32, np.empty(0, np.bool_), none64, none32, none8, none8, keys)
    assert len(code_rows(rows, 16)) < n * (64 - np.log2(n) + 1.7) / 8


def test_any_bytes_are_decoded_or_refused():
    random = np.random.default_rng(4)
    for length in (*range(12), *random.integers(12, 80, 400)):
        coded = random.integers(0, 256, length).astype(np.uint8).tobytes()
        try:
            rows = decode_coded_rows(coded, 2)
        except DamagedError:
            continue
        assert listed(decode_coded_rows(code_rows(rows, 2), 2), 2) == listed(rows, 2)


def test_bytes_that_are_cut_off_or_changed_are_refused_or_are_other_rows():
    rows = changed_rows(20, 10, 3, 3)
    coded = code_rows(rows, 3)
    for length in range(1, len(coded)):
        with pytest.raises(DamagedError, match=f"coded rows of {length} bytes .*hint: the delta is damaged"):
            decode_coded_rows(coded[:length], 3)
    with pytest.raises(DamagedError, match="go on after the last row"):
        decode_coded_rows(coded + b"\0\0", 3)


def zero_differences(n, dim):
    """The rows that take the fewest bytes."""
    none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
    payload = np.zeros(n * (1 + 2 * dim), np.uint8)
    return ChangedRows(
        np.arange(n, dtype=np.uint32), np.ones(n, np.bool_), none64, none32, np.full(n, 16, np.uint8), payload, none64
    )  # fmt: skip


@pytest.mark.parametrize("dim", [1, 16, 256])
def test_rows_are_announced_before_they_are_decoded(dim):
    for rows in (changed_rows(200, 100, 9, dim), zero_differences(5_000, dim)):
        coded = code_rows(rows, dim)
        announced = announced_rows(coded)
        known, new = len(rows.handles), len(rows.new_keys)
        assert announced.by_precision[:, :2].sum() == known
        assert announced.by_precision[:, 2].sum() == new
        assert announced.by_precision.sum(axis=1).tolist() == [np.count_nonzero(rows.bits == b) for b in PRECISIONS]
        decoded = decode_coded_rows(coded, dim)
        assert announced.removed == len(rows.removed)
        assert announced.decoded_bytes(dim) == sum(part.nbytes for part in decoded)


def test_a_stream_of_the_cheapest_rows_is_bounded_by_its_bytes():
    for dim in (1, 16, 256):
        coded = code_rows(zero_differences(5_000, dim), dim)
        assert announced_rows(coded).decoded_bytes(dim) <= 576 * len(coded)


def test_a_stream_announces_nothing_that_it_cannot_hold():
    random, refused = np.random.default_rng(5), 0
    for length in random.integers(6, 40, 4_000):
        coded = random.integers(0, 256, length).astype(np.uint8).tobytes()
        if announced_rows(coded).decoded_bytes(16) > 576 * (length + 1):
            with pytest.raises(DamagedError, match="announce more rows than they can hold"):
                decode_coded_rows(coded, 16)
            refused += 1
    assert refused > 10


def test_a_value_that_is_not_bytes_is_refused():
    for odd in (5, bytearray(4), np.zeros(4, np.uint8), None):
        with pytest.raises(InputError, match=r"coded rows: got .*, wanted bytes"):
            decode_coded_rows(odd, 4)
    for dim in (0, 65_537):
        with pytest.raises(InputError, match=f"dim: got {dim}"):
            decode_coded_rows(b"", dim)


def test_payloads_follow_their_rows():
    rows = changed_rows(50, 0, 0, 5)
    order, starts = np.random.default_rng(1).permutation(50), payload_offsets(rows.bits, 5)
    wanted = b"".join(rows.payload[starts[row] : starts[row + 1]].tobytes() for row in order)
    assert reorder_payload(rows.payload, rows.bits, order, 5).tobytes() == wanted
    assert len(reorder_payload(rows.payload[:0], rows.bits[:0], order[:0], 5)) == 0


@pytest.mark.parametrize("order", [[0, 1, 1], [0, 1, 3], [-1, 0, 1]])
def test_an_order_that_is_no_permutation_is_refused(order):
    rows = changed_rows(3, 0, 0, 5)
    with pytest.raises(InputError, match="order: got "):
        reorder_payload(rows.payload, rows.bits, np.array(order), 5)


@pytest.mark.parametrize("name", ChangedRows._fields)
def test_odd_rows_are_refused(name):
    case = changed_rows(3, 3, 3, 5)
    good = getattr(case, name)
    signed = good.astype(np.int16)
    odd_ones = [signed, np.repeat(good, 2)[::2], good[None], good.tolist(), np.broadcast_to(good[:1], 2**31)]
    for odd in odd_ones if name == "removed" else [good[:-1].copy(), *odd_ones]:
        with pytest.raises(InputError, match=": got "):
            code_rows(case._replace(**{name: odd}), 5)


def test_an_unknown_precision_and_a_difference_of_floats_are_refused():
    rows = changed_rows(3, 3, 0, 5)
    with pytest.raises(InputError, match="bits: got 5 at 2"):
        code_rows(rows._replace(bits=np.where(np.arange(6) == 2, 5, rows.bits).astype(np.uint8)), 5)
    floats = changed_rows(2, 0, 0, 5, precisions=(32,))
    with pytest.raises(InputError, match="relative: got a row of 32 bits"):
        code_rows(floats._replace(relative=np.bool_([False, True])), 5)


def test_keys_that_serving_got_at_once_cost_their_run_and_no_permutation():
    """The rows of a full: key and handle of a batch of m keys take about 64 - log2(m) + 1.44 bits."""
    runs, size, dim, random = 20, 1_000, 1, np.random.default_rng(6)
    keys = np.sort(random.integers(0, 2**64, (runs, size), np.uint64), axis=1).ravel()
    n, none32, none64 = runs * size, np.empty(0, np.uint32), np.empty(0, np.uint64)
    payload = np.zeros(2 * n, np.uint8)
    rows = ChangedRows(
        none32, np.empty(0, np.bool_), keys, np.arange(n, dtype=np.uint32), np.full(n, 8, np.uint8), payload, none64
    )
    coded = code_rows(rows, dim)
    assert len(coded) < n * (64 - np.log2(size) + 1.44 + 0.9) / 8
    assert listed(decode_coded_rows(coded, dim), dim) == listed(rows, dim)
    assert decode_coded_rows(coded, dim).new_handles.tolist() == list(range(n))
