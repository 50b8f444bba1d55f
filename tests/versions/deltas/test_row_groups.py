"""The parts of an encoded delta: gaps of any length, rows grouped as in NumPy, and invalid input."""

import numpy as np
import pytest

from pipeline.errors import DamagedError, InputError
from pipeline.formats.gaps import decode_gaps, encode_gaps
from pipeline.versions.deltas.quantizer import PRECISIONS, payload_bytes, payload_offsets
from pipeline.versions.deltas.row_groups import group_rows, reorder_payload


def spelled_by_words(values):
    last, spelled = 0, bytearray()
    for value in values:
        gap, last = value - last, value
        while gap > 127:
            spelled.append(gap % 128 + 128)
            gap //= 128
        spelled.append(gap)
    return bytes(spelled)


def test_gaps_survive_at_every_length():
    values = np.array(sorted({0, *(1 << s for s in range(64)), *((1 << s) - 1 for s in range(1, 65))}), np.uint64)
    assert encode_gaps(values) == spelled_by_words(values.tolist())
    assert decode_gaps(encode_gaps(values)).tolist() == values.tolist()


@pytest.mark.parametrize("bits", [1, 7, 8, 20, 63, 64])
def test_any_ascending_numbers_are_spelled_in_one_way(bits):
    random = np.random.default_rng(bits)
    for n in (0, 1, 2, 500):
        values = np.sort(random.integers(0, 2**bits - 1, n, np.uint64, endpoint=True))
        spelled = encode_gaps(values)
        assert spelled == spelled_by_words(values.tolist())
        assert decode_gaps(spelled).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("spelled", "wrong"),
    [
        (bytes([1, 0x80]), "end inside a number"),
        (bytes([0x80] * 10), "end inside a number"),
        (bytes([0x80] * 10 + [0]), "have a gap of more than 10 bytes"),
        (bytes([0xFF] * 9 + [2]), "have a gap above 64 bits"),
        (bytes([0xFF] * 9 + [1, 1]), "lead to a number above 64 bits"),
    ],
)
def test_bytes_that_spell_no_numbers_are_refused(spelled, wrong):
    with pytest.raises(DamagedError, match=f"gaps of {len(spelled)} bytes {wrong}. hint: "):
        decode_gaps(spelled)


def test_the_greatest_number_is_read_and_no_bytes_are_no_numbers():
    assert decode_gaps(bytes([0xFF] * 9 + [1])).tolist() == [2**64 - 1]
    assert decode_gaps(b"").dtype == np.uint64
    assert len(decode_gaps(b"")) == 0


@pytest.mark.parametrize("odd", [5, "0301", bytearray(2), np.zeros(2, np.uint8), None])
def test_a_value_that_is_not_bytes_is_refused(odd):
    with pytest.raises(InputError, match=r"gaps: got .*, wanted bytes"):
        decode_gaps(odd)


def test_any_bytes_are_decoded_or_refused():
    random = np.random.default_rng(4)
    for _ in range(3_000):
        spelled = random.choice(np.uint8([0, 1, 127, 128, 255]), random.integers(0, 40)).tobytes()
        try:
            values = decode_gaps(spelled)
        except DamagedError:
            continue
        assert values.tolist() == sorted(values.tolist())
        assert (decode_gaps(encode_gaps(values)) == values).all()


def test_values_that_do_not_ascend_are_refused():
    with pytest.raises(InputError, match="values: got 3 after 4, wanted ascending order"):
        encode_gaps(np.uint64([1, 4, 3]))
    for odd in ([1, 2], np.int64([1]), np.uint64([[1]]), np.uint64([1, 2, 3, 4])[::2], None):
        with pytest.raises(InputError, match="values: got "):
            encode_gaps(odd)


def rows(known, new, dim, seed=0, precisions=PRECISIONS):
    random = np.random.default_rng([seed, known, new])
    bits = random.choice(np.uint8(precisions), known + new)
    payload = random.integers(0, 256, int(payload_offsets(bits, dim)[-1]), np.uint8)
    handles = random.permutation(70_000)[: known + new].astype(np.uint32)
    return handles[:known], random.integers(0, 2**64, new, np.uint64), handles[known:], bits, payload, dim


def grouped_by_words(handles, new_keys, new_handles, bits, payload, dim):
    known, groups = len(handles), []
    every, starts = np.concatenate([handles, new_handles]), payload_offsets(bits, dim)
    for each in PRECISIONS:
        index = np.flatnonzero(bits == each)
        index = index[np.lexsort((every[index], index >= known))]
        old, fresh = index[index < known], index[index >= known]
        places = starts[index][:, None] + np.arange(payload_bytes(each, dim))
        if len(index):
            groups.append(
                {
                    "bits": each,
                    "known": encode_gaps(every[old].astype(np.uint64)),
                    "new_handles": encode_gaps(every[fresh].astype(np.uint64)),
                    "new_keys": new_keys[fresh - known].astype("<u8").tobytes(),
                    "payload": payload[places].tobytes(),
                }
            )
    return groups


@pytest.mark.parametrize("dim", [1, 3, 16])
@pytest.mark.parametrize(("known", "new"), [(0, 0), (1, 0), (0, 1), (200, 0), (0, 200), (300, 100)])
def test_rows_are_grouped_as_in_numpy(dim, known, new):
    for precisions in (PRECISIONS, (8,)):
        case = rows(known, new, dim, precisions=precisions)
        assert group_rows(*case) == grouped_by_words(*case)


def test_payloads_follow_their_rows():
    *_, bits, payload, dim = rows(50, 0, 5)
    order, starts = np.random.default_rng(1).permutation(50), payload_offsets(bits, dim)
    wanted = b"".join(payload[starts[row] : starts[row + 1]].tobytes() for row in order)
    assert reorder_payload(payload, bits, order, dim).tobytes() == wanted
    assert len(reorder_payload(payload[:0], bits[:0], order[:0], dim)) == 0


@pytest.mark.parametrize("order", [[0, 1, 1], [0, 1, 3], [-1, 0, 1]])
def test_an_order_that_is_no_permutation_is_refused(order):
    *_, bits, payload, dim = rows(3, 0, 5)
    with pytest.raises(InputError, match="order: got "):
        reorder_payload(payload, bits, np.array(order), dim)


NAMES = ("handles", "new_keys", "new_handles", "bits", "payload")


@pytest.mark.parametrize("name", NAMES)
def test_odd_rows_are_refused(name):
    case = dict(zip((*NAMES, "dim"), rows(3, 3, 5), strict=True))
    good = case[name]
    shorter, signed = good[:-1].copy(), good.astype(good.dtype.name.removeprefix("u"))
    for odd in (shorter, signed, np.repeat(good, 2)[::2], good[None], good.tolist(), np.broadcast_to(good[:1], 2**31)):
        with pytest.raises(InputError, match=": got "):
            group_rows(**{**case, name: odd})


def test_an_unknown_precision_is_refused():
    *first, bits, payload, dim = rows(3, 3, 5)
    with pytest.raises(InputError, match="bits: got 5 at 2"):
        group_rows(*first, np.where(np.arange(6) == 2, 5, bits).astype(np.uint8), payload, dim)
