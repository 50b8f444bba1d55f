"""The delta codec: canonical bytes, lossless round trip, damage detected."""

import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pipeline.errors import DamagedError
from pipeline.versions.deltas.delta import (
    UNCHANGED,
    Delta,
    DenseChange,
    FieldDelta,
    decode_delta,
    decode_heading,
    delta_name,
    encode_delta,
    served_digest,
)
from pipeline.versions.deltas.quantizer import payload_offsets
from tests.versions.deltas.test_coded_rows import valid_payload


def field_delta(seed: int = 0, known: int = 5, new: int = 4, removed: int = 3, dim: int = 4) -> FieldDelta:
    random = np.random.default_rng(seed)
    bits = random.choice(np.array([4, 8, 16, 32], np.uint8), known + new)
    relative = bits[:known] < 16
    return FieldDelta(
        dim=dim,
        handles=random.choice(1_000, known, replace=False).astype(np.uint32),
        new_keys=random.integers(0, 2**64, new, np.uint64),
        new_handles=(1_000 + random.permutation(new)).astype(np.uint32),
        bits=bits,
        payload=valid_payload(random, bits, relative, dim),
        removed=random.integers(0, 2**64, removed, np.uint64),
        relative=relative,
    )


def delta(**changes) -> Delta:
    fields = changes.setdefault("fields", {"user": field_delta()})
    plain = Delta(
        level="realtime", generation=2, shard=0, shards=1, from_sequence=41, to_sequence=42, first_at_ms=1_000,
        last_at_ms=2_000, base_generation=2, before="ab" * 16, after="cd" * 16, fields=fields,
        digests={name: 2**63 + len(name) for name in fields}, dense=b"dense", model={"name": "model", "digest": "ef"},
    )  # fmt: skip
    return replace(plain, **changes)


def rows_of(change: FieldDelta) -> dict:
    """By (handle, key or None): bits, payload bytes, and whether they are a difference."""
    starts = payload_offsets(change.bits, change.dim)
    keys = [None] * len(change.handles) + change.new_keys.tolist()
    handles = np.concatenate([change.handles, change.new_handles]).tolist()
    pieces = [change.payload[a:b].tobytes() for a, b in pairwise(starts)]
    relative = [*change.relative.tolist(), *(False for _ in change.new_keys)]
    columns = zip(handles, keys, change.bits, pieces, relative, strict=True)
    return {(handle, key): (int(bits), piece, each) for handle, key, bits, piece, each in columns}


def test_every_row_and_tombstone_survives_the_round_trip():
    before = delta()
    after = decode_delta(encode_delta(before))
    assert rows_of(after.fields["user"]) == rows_of(before.fields["user"])
    assert after.fields["user"].removed.tolist() == sorted(before.fields["user"].removed.tolist())
    assert replace(after, fields={}) == replace(before, fields={})


def test_encoding_what_was_decoded_gives_the_same_bytes():
    encoded = encode_delta(delta())
    assert encode_delta(decode_delta(encoded)) == encoded


def test_order_of_rows_and_fields_does_not_change_the_bytes():
    one, two = field_delta(1), field_delta(2)
    encoded = encode_delta(delta(fields={"a": one, "b": two}))
    order = np.random.default_rng(3).permutation(len(one.handles))
    starts = payload_offsets(one.bits, one.dim)
    pieces = [one.payload[a:b] for a, b in pairwise(starts)]
    known = len(one.handles)
    shuffled = replace(
        one,
        handles=one.handles[order],
        relative=one.relative[order],
        bits=np.concatenate([one.bits[:known][order], one.bits[known:]]),
        payload=np.concatenate([*(pieces[i] for i in order), *pieces[known:]]),
        removed=one.removed[::-1],
    )
    assert encode_delta(delta(fields={"b": two, "a": shuffled})) == encoded


def test_an_empty_delta_survives_the_round_trip():
    empty = delta(fields={"user": FieldDelta.empty(4)}, dense=b"", before=None)
    assert rows_of(decode_delta(encode_delta(empty)).fields["user"]) == {}


def test_every_flipped_bit_is_refused():
    encoded = encode_delta(delta())
    for place in range(len(encoded)):
        for bit in (1, 0x80):
            flipped = bytearray(encoded)
            flipped[place] ^= bit
            with pytest.raises(DamagedError):
                decode_delta(bytes(flipped))


def test_every_truncation_is_refused():
    encoded = encode_delta(delta())
    for length in range(len(encoded)):
        with pytest.raises(DamagedError):
            decode_delta(encoded[:length])


def test_a_change_of_dense_weights_survives_the_round_trip_in_a_realtime_delta_only():
    for arrays in (None, b"", b"arrays"):
        changing = delta(fields={}, dense=DenseChange(b"s" * 16, arrays, b"blocks"))
        assert decode_delta(encode_delta(changing)).dense == changing.dense
        assert changing.dense_digest == b"s" * 16
    for level in ("incremental", "full", "reverse"):
        with pytest.raises(DamagedError, match=f"level {level} has a change of dense weights"):
            decode_delta(encode_delta(replace(changing, level=level)))


def test_bytes_after_the_end_are_refused():
    with pytest.raises(DamagedError):
        decode_delta(encode_delta(delta()) + b"\0")


def test_the_name_changes_with_the_content():
    names = {delta_name(encode_delta(d)) for d in (delta(), delta(dense=b"other"), delta(to_sequence=43))}
    assert len(names) == 3


def test_golden_bytes_of_a_small_delta():
    small = delta(
        fields={"u": FieldDelta(
            1, np.array([3, 300], np.uint32), np.array([7], np.uint64), np.array([301], np.uint32),
            np.array([32, 4, 8], np.uint8), np.uint8([1, 2, 3, 4, 0, 255, 254, 100]), np.array([9, 1], np.uint64),
            np.array([False, True]),
        )},
        model={},
    )  # fmt: skip
    encoded = encode_delta(small)
    assert encoded[:21].hex() == "0039d8f0adebc640987bcb12da61130278550d63f1"
    assert (
        encoded[21:].hex()
        == (
            "00040400025254d00fa01f02" + "ab" * 16 + "cd" * 16 + "000000"  # no model, digest and part
            "020a64656e7365"
            "02027502"  # one field, u, dim 1
            "0100000000000080"  # its digest
            "5409ab1000edf20000000000809081000000000080e89f2cd7e9afe71400000000000068fd488103040000"
            "00"
        )
    )


def test_differences_are_refused_in_a_delta_that_is_not_realtime():
    for level in ("incremental", "full", "reverse"):
        with pytest.raises(DamagedError, match=f"field user of a delta of level {level} has differences of rows"):
            decode_delta(encode_delta(delta(level=level)))


@pytest.mark.parametrize(("number", "schema"), [(1, "002b0deb9d"), (2, "0078475865"), (3, "000508f075")])
def test_a_delta_of_a_former_format_is_refused_with_the_way_out(number, schema):
    former = bytearray(encode_delta(delta()))
    former[:37] = bytes.fromhex(schema) + bytes(32)
    former[5:37] = hashlib.sha256(former).digest()
    with pytest.raises(DamagedError, match=rf"has format {number}, wanted 4.*run: springtide publish --level full"):
        decode_delta(bytes(former))
    with pytest.raises(DamagedError, match=rf"has format {number}, wanted 4"):
        decode_heading(bytes(former))


def test_dense_weights_that_stay_cost_one_byte():
    stays, changing = delta(dense=UNCHANGED), delta(dense=DenseChange(b"s" * 16, None, b""))
    assert decode_delta(encode_delta(stays)).dense == UNCHANGED
    assert stays.dense_digest is None
    assert len(encode_delta(changing)) - len(encode_delta(stays)) == 16 + 2
    with pytest.raises(DamagedError, match="level full has a change of dense weights"):
        decode_delta(encode_delta(replace(stays, level="full", fields={})))


def test_the_part_of_a_file_survives_the_round_trip():
    of_part = {"part": "coarse", "part_digest": "0a1b2c3d", "dense_digest": "ef" * 16}
    cut = delta(level="full", fields={}, model={"name": "model", "digest": "ab" * 16, **of_part})
    assert decode_delta(encode_delta(cut)) == cut
    assert cut.dense_digest == b"\xef" * 16


def test_the_header_of_a_small_delta_of_eight_tables_is_small():
    """Frame, versions, times, digests and the model; then name, dim, digest and no rows of each table."""
    fields = {f"table{i}": FieldDelta.empty(4) for i in range(8)}
    encoded = encode_delta(delta(fields=fields, dense=UNCHANGED, model={"name": "model", "digest": "ab" * 16}))
    assert len(encoded) == 92 + 8 * (7 + 1 + 8 + 1)


def test_a_known_row_of_which_nothing_moved_costs_about_two_bytes():
    n = 10_000
    bits = np.full(n, 4, np.uint8)
    handles = np.sort(np.random.default_rng(0).choice(50_000, n, replace=False)).astype(np.uint32)
    none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
    payload = np.zeros(int(payload_offsets(bits, 16)[-1]), np.uint8)
    change = FieldDelta(16, handles, none64, none32, bits, payload, none64, np.ones(n, np.bool_))
    assert len(encode_delta(delta(fields={"user": change}))) < 2 * n


def test_the_served_digest_depends_on_the_field():
    assert served_digest({"a": 1, "b": 2}, b"") != served_digest({"a": 2, "b": 1}, b"")
    assert served_digest({"a": 1}, b"") != served_digest({"a": 1}, b"x")
