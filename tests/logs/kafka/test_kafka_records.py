"""Record batches decoded natively against kafka-python's decoder, and invalid bytes."""

import random

import crc32c
import pytest
from kafka import codec
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder

from pipeline.errors import DamagedError
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.kafka.decompression import decompress
from pipeline.logs.kafka.record_batches import decode_record_set
from tests.support.simd import forced_simd_level, simd_levels

CODECS = {"plain": 0, "gzip": 1, "lz4": 3, "zstd": 4}
HEADER = 61
CONTROL, TRANSACTIONAL = 32, 16


def batch(base, records, codec="plain", producer=-1, attributes=0):
    """A batch of (time, key, value, headers) built by kafka-python, with base offset `base`."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=CODECS[codec],
        is_transactional=bool(attributes & TRANSACTIONAL),
        producer_id=producer,
        producer_epoch=0 if producer >= 0 else -1,
        base_sequence=0 if producer >= 0 else -1,
        batch_size=1 << 30,
    )
    for delta, (at_ms, key, value, headers) in enumerate(records):
        builder.append(delta, at_ms, key, value, headers)
    return moved(builder.build(), base, attributes)


def moved(built, base, attributes=0):
    """The batch with another base offset (outside the checksum) and more attributes (inside it)."""
    changed = bytearray(built)
    changed[:8] = base.to_bytes(8, "big")
    changed[22] |= attributes
    return sealed(changed)


def sealed(changed):
    """The batch with a valid checksum, computed by the library that the client uses."""
    changed[17:21] = crc32c.crc32c(bytes(changed[21:])).to_bytes(4, "big")
    return bytes(changed)


def some(count, seed=1, size=50):
    chance = random.Random(seed)
    return [
        (
            1_000_000 + chance.randrange(-5_000, 5_000),
            chance.choice([None, b"", b"key"]),
            chance.choice([None, b"", chance.randbytes(chance.randrange(size))]),
            chance.choice([[], [], [("a", b"1"), ("a", b"2"), ("b", b"\xff")], [("none", None)]]),
        )
        for _ in range(count)
    ]


def reference(record_set, start=0):
    """The records as kafka-python decodes them, without their keys, which runs do not have."""
    reader, found = MemoryRecords(record_set), []
    while (one := reader.next_batch()) is not None:
        assert one.validate_crc()
        for r in one:
            headers = {key: (value or b"").decode("utf-8", "replace") for key, value in r.headers}
            found.append((r.offset, r.timestamp, r.value or b"", headers, None))
    return [record for record in found if record[0] >= start]


def decoded(record_set, start=0, aborted=()):
    return [tuple(record) for record in decode_record_set(record_set, start, aborted)]


@pytest.fixture(params=simd_levels())
def level(request):
    with forced_simd_level(request.param):
        yield


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_decodes_as_the_client_does(codec):
    record_set = batch(100, some(300, 1), codec) + batch(400, some(1, 2), codec) + batch(500, some(40, 3, 3000), codec)
    assert decoded(record_set) == reference(record_set)


def test_codecs_may_change_from_batch_to_batch():
    record_set = b"".join(batch(n * 50, some(20, n), codec) for n, codec in enumerate(list(CODECS) * 3))
    assert decoded(record_set) == reference(record_set)


@pytest.mark.parametrize("start", [0, 99, 100, 101, 139, 140, 149, 150, 159, 160, 1000])
def test_records_below_the_start_are_left_out(start):
    record_set = batch(100, some(40)) + batch(150, some(10))
    run = decode_record_set(record_set, start)
    assert [tuple(record) for record in run] == reference(record_set, start)
    assert run.next_offset == max(start, 160)


def test_records_with_broker_timestamps_have_the_time_of_their_batch():
    record_set = batch(0, some(20), attributes=8)
    largest = max(at_ms for at_ms, *_ in some(20))
    assert {record[1] for record in decoded(record_set)} == {largest}
    assert decoded(record_set) == reference(record_set)


def test_a_batch_truncated_at_the_end_is_left_for_the_next_fetch():
    whole, cut = batch(0, some(5)), batch(5, some(5))
    for size in (0, 1, 11, 12, 13, 60, 61, 62, len(cut) - 1):
        run = decode_record_set(whole + cut[:size], 0)
        assert (len(run), run.next_offset) == (5, 5)


def test_an_empty_record_set_gives_an_empty_run():
    run = decode_record_set(b"", 7)
    assert (len(run), run.next_offset, list(run)) == (0, 7, [])


def marker(base, producer):
    return batch(base, [(1, b"\0\0\0\0", b"\0" * 6, [])], producer=producer, attributes=CONTROL | TRANSACTIONAL)


def transactional(base, producer, word):
    return batch(base, [(1, None, word, [])], producer=producer, attributes=TRANSACTIONAL)


def test_aborted_transactions_and_markers_are_skipped():
    record_set = (
        transactional(0, 7, b"undone")
        + transactional(1, 8, b"kept")
        + batch(2, [(1, None, b"no transaction", [])])
        + transactional(3, 7, b"undone too")
        + marker(4, 7)
        + transactional(5, 7, b"another transaction")
        + marker(6, 8)
        + marker(7, 7)
    )
    run = decode_record_set(record_set, 0, [(7, 0)])
    assert [r.value for r in run] == [b"kept", b"no transaction", b"another transaction"]
    assert run.next_offset == 8


def test_a_producer_may_abort_twice_and_begin_before_the_fetch():
    record_set = (
        transactional(10, 7, b"a")
        + marker(11, 7)
        + transactional(12, 7, b"b")
        + transactional(13, 7, b"c")
        + marker(14, 7)
    )
    assert decoded(record_set, 10, [(7, 12), (7, 3)]) == []
    assert [r[2] for r in decoded(record_set, 10, [(7, 3)])] == [b"b", b"c"]


def test_a_batch_emptied_by_compaction_advances_the_offset():
    empty = bytearray(batch(5, some(1)))[:HEADER]
    empty[8:12] = (HEADER - 12).to_bytes(4, "big")
    empty[23:27] = (9).to_bytes(4, "big")
    empty[57:61] = bytes(4)
    assert decode_record_set(sealed(empty), 0).next_offset == 15


def test_checksums_equal_those_of_the_library_at_every_level(level):
    for size in (0, 1, 7, 8, 9, 63, 64, 65, 5_000):
        record_set = batch(0, [(1, None, random.Random(size).randbytes(size), [])])
        assert decoded(record_set) == reference(record_set)
        for at in (21, len(record_set) - 1):
            broken = bytearray(record_set)
            broken[at] ^= 1
            with pytest.raises(DamagedError, match="does not match its checksum"):
                decode_record_set(bytes(broken), 0)


@pytest.mark.parametrize(
    ("at", "to", "message"),
    [
        (8, b"\xff\xff\xff\xff", "has a negative length"),
        (8, (4).to_bytes(4, "big"), "is shorter than a header"),
        (8, (30).to_bytes(4, "big"), "is shorter than a header"),
        (16, b"\x01", "is not of format 2"),
        (57, b"\xff\xff\xff\xff", "has a negative number of records"),
        (57, (10**6).to_bytes(4, "big"), "has fewer bytes than its records need"),
        (57, (6).to_bytes(4, "big"), "ends inside a record"),
        (57, (4).to_bytes(4, "big"), "goes on behind its records"),
        (23, (3).to_bytes(4, "big"), "has records out of order"),
        (0, b"\x7f" + b"\xff" * 7, "has offsets beyond 64 bits"),
        (61, b"\x02", "has a record that does not fill its length|ends inside a record"),
        (61, b"\xff", "ends inside a record"),
    ],
)
def test_the_error_names_the_defect_of_an_invalid_batch(at, to, message):
    broken = bytearray(batch(0, [(1, None, b"v" * 40, [])] * 5))
    broken[at : at + len(to)] = to
    with pytest.raises(DamagedError, match=message):
        decode_record_set(sealed(broken), 0)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_a_batch_that_cannot_be_decompressed_is_an_error(codec):
    broken = bytearray(batch(0, some(50), codec))
    broken[HEADER : HEADER + 8] = b"nonsense"
    with pytest.raises(DamagedError, match=f"a batch is not valid {codec}"):
        decode_record_set(sealed(broken), 0)


COMPRESS = {1: codec.gzip_encode, 3: codec.lz4_encode, 4: codec.zstd_encode}


@pytest.mark.parametrize("kind", COMPRESS)
def test_decompression_ends_at_its_bound(kind):
    body = COMPRESS[kind](bytes(20 << 20))
    assert len(body) < 200_000
    assert decompress(kind, body) == bytes(20 << 20)
    assert decompress(kind, body, max_bytes=20 << 20) == bytes(20 << 20)
    for most in ((20 << 20) - 1, 1_000):
        with pytest.raises(DamagedError, match=f"a batch of {len(body)} bytes has more than {most} bytes of records"):
            decompress(kind, body, max_bytes=most)


@pytest.mark.parametrize(
    "kind", [1, 3]
)  # the reader of zstd returns what there is; the checksum of the batch covers it
def test_compressed_records_that_are_cut_off_are_an_error(kind):
    body = COMPRESS[kind](random.Random(1).randbytes(100_000))
    for cut in (body[: len(body) // 2], body[:5]):
        with pytest.raises(DamagedError, match="a batch is not valid"):
            decompress(kind, cut)


def test_an_unknown_codec_is_an_error():
    with pytest.raises(DamagedError, match="compressed with codec 5"):
        decode_record_set(batch(0, some(3), attributes=5), 0)


def test_any_changed_byte_is_detected_unless_it_is_outside_the_checksum():
    record_set = batch(0, some(10, 4))
    for at in range(8, len(record_set)):
        broken = bytearray(record_set)
        broken[at] ^= 1 << at % 8
        try:
            run = decode_record_set(bytes(broken), 0)
        except DamagedError:
            continue
        # Only the leader epoch is outside the checksum; a length beyond the end means a truncated batch.
        assert 12 <= at < 16 or len(run) == 0


def test_a_run_is_split_by_records_and_bytes():
    record_set = batch(0, [(1, None, b"1234", [("n", b"%d" % n)]) for n in range(10)])
    rest, found = decode_record_set(record_set, 2), []
    while len(rest):
        part, rest = rest.cut(ReadLimits(records=3, max_bytes=8))
        assert len(part) == 2
        assert part.next_offset == part.offsets[-1] + 1
        found += [tuple(r) for r in part]
    assert found == reference(record_set, 2)
    assert len(decode_record_set(record_set, 0).cut(ReadLimits(max_bytes=1))[0]) == 1
