"""Keys: XXH64 compared with the xxhash package, all kinds of Arrow columns, golden ids and shards."""

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from pipeline.arrays.keys import combine_keys, hash_bytes, hash_column, ids128, null_key, shard_of
from pipeline.errors import InputError
from tests.support.simd import forced_simd_level, simd_levels

SEEDS = (0, 1, 0x9E3779B185EBCA87, 2**64 - 1)


def reference(value, seed):
    """The key of one Python value, written from the specification of `hash_column`."""
    if value is None:
        return null_key(seed)
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bool, int)):
        value = int(value).to_bytes(8, "little", signed=True)
    if isinstance(value, float):
        value = np.float64(value + 0.0).tobytes()  # one zero
    return xxhash.xxh64_intdigest(value, seed)


def check(array, seed=7):
    assert hash_column(array, seed).tolist() == [reference(v, seed) for v in array.to_pylist()]


@pytest.mark.parametrize("seed", SEEDS)
def test_bytes_of_every_length_hash_as_xxh64(seed):
    text = np.random.default_rng(1).bytes(200)
    for length in range(0, 101):
        for start in (0, 1, 3):
            part = text[start : start + length]
            assert hash_bytes(part, seed) == xxhash.xxh64_intdigest(part, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_integers_hash_their_eight_little_endian_bytes(seed):
    check(pa.array([0, 1, -1, 2**63 - 1, -(2**63), None]), seed)


@pytest.mark.parametrize("level", simd_levels())
def test_keys_never_change_at_any_simd_level(level):
    with forced_simd_level(level):
        check_golden_keys()


@pytest.mark.parametrize("level", simd_levels())
def test_numbers_hash_alike_at_every_simd_level(level):
    rng = np.random.default_rng(3)
    with forced_simd_level(level):
        for n in (0, 1, 3, 4, 7, 8, 9, 17, 1000):
            nulls = rng.random(n) < 0.2
            integers, doubles = rng.integers(-(2**63), 2**63, n), np.round(rng.normal(size=n))
            for values in (integers, doubles):
                check(pa.array(values))
                check(pa.array(values, mask=nulls))


def check_golden_keys():
    assert hash_column(pa.array(["", "a", "springtide", None]), 1).tolist() == [
        15397730242686860875,
        16051599287423682246,
        4561847333544075073,
        null_key(1),
    ]
    assert hash_column(pa.array([0, 42]), 1).tolist() == [2506089352882295055, 6930801576446352723]
    assert null_key(0) == 887585534193123493
    batch = pa.record_batch({"user": ["u1", "u2", None], "item": [1, 2, 3]})
    assert ids128(batch, ["user", "item"]).tolist() == [
        [13413196875712153787, 3301235379942115034],
        [8676922319170905890, 9308744660756180526],
        [17385372765546222160, 3178663442598923336],
    ]
    assert shard_of(batch, ["user"], 1000).tolist() == [81, 174, 644]


TYPED = {
    "string": (["", "a", "été", None, "x" * 70], pa.string()),
    "large_string": (["", "a", None, "y" * 33], pa.large_string()),
    "binary": ([b"", b"\x00", None, b"\xff" * 40], pa.binary()),
    "large_binary": ([b"q", None, b""], pa.large_binary()),
    "int64": ([1, None, -7, 2**40], pa.int64()),
    "float64": ([1.5, None, -2.0, 1e300], pa.float64()),
    "bool": ([True, None, False, True], pa.bool_()),
}


@pytest.mark.parametrize("name", TYPED)
def test_every_type_hashes_by_value(name):
    values, kind = TYPED[name]
    check(pa.array(values, kind))


@pytest.mark.parametrize("name", TYPED)
def test_slices_hash_as_copies_of_them(name):
    values, kind = TYPED[name]
    array = pa.array(values * 9, kind)  # longer than one byte of the validity bitmap
    for start in (0, 1, 7, 8, 9):
        for length in (0, 1, 11):
            check(array.slice(start, length))


@pytest.mark.parametrize("name", TYPED)
def test_an_empty_column_gives_no_keys(name):
    assert hash_column(pa.array([], TYPED[name][1]), 3).shape == (0,)


def test_a_column_of_empty_strings_hashes():
    check(pa.array(["", "", ""]))


def test_a_column_of_nulls_only_has_one_key():
    for kind in (pa.string(), pa.int64(), pa.bool_(), pa.null()):
        assert set(hash_column(pa.array([None] * 10, kind), 5).tolist()) == {null_key(5)}


def test_null_hashes_unlike_any_value_and_depends_on_the_seed():
    nothing = {hash_bytes(b"", 5), hash_bytes(b"null", 5), *hash_column(pa.array([0]), 5).tolist()}
    assert null_key(5) not in nothing
    assert null_key(5) != null_key(6)


def test_minus_zero_hashes_as_zero_and_all_nans_alike():
    other_nan = np.array([0x7FF8000000000001, 0xFFF8000000000000], np.uint64).view(np.float64)
    assert len(set(hash_column(pa.array([0.0, -0.0]), 1).tolist())) == 1
    assert len(set(hash_column(pa.array(np.append(other_nan, np.nan)), 1).tolist())) == 1


def test_a_dictionary_column_hashes_as_its_values():
    values = ["a", None, "b", "a", "", None]
    check(pa.array(values).dictionary_encode())
    check(pa.array(values).dictionary_encode().slice(1, 4))
    check(pa.DictionaryArray.from_arrays(pa.array([0, 1, 1]), pa.array([None, "z"])))


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.string())])
def test_a_list_column_gives_the_keys_of_its_flattened_values(kind):
    array = pa.array([["a", "b"], [], None, ["c", None]], kind)
    assert hash_column(array, 4).tolist() == [reference(v, 4) for v in ("a", "b", "c", None)]
    assert hash_column(array.slice(1), 4).tolist() == [reference(v, 4) for v in ("c", None)]


@pytest.mark.parametrize(
    "kind", [pa.int32(), pa.float32(), pa.timestamp("ms"), pa.uint32(), pa.struct([("a", pa.int64())])]
)
@pytest.mark.parametrize("length", [0, 2])
def test_other_types_are_refused(kind, length):
    with pytest.raises(InputError, match=r"got .*, wanted string, binary, int64"):
        hash_column(pa.nulls(length, kind), 1)


def test_other_objects_than_arrow_arrays_are_refused():
    with pytest.raises(InputError, match="got ndarray, wanted a pyarrow Array"):
        hash_column(np.zeros(3), 1)
    with pytest.raises(InputError, match="got ChunkedArray"):
        hash_column(pa.chunked_array([["a"]]), 1)


def drawn_column(rng):
    """A column of a random type, nulls among its values or not, complete or sliced, dictionary-encoded or not."""
    n = int(rng.integers(0, 40))
    ints = rng.integers(-(2**63), 2**63, n) >> rng.integers(0, 64, n)
    texts = [rng.bytes(int(k)).hex()[: int(k)] for k in rng.integers(0, 40, n)]
    values, kind = [
        (ints.tolist(), pa.int64()),
        (rng.normal(size=n).tolist(), pa.float64()),
        ((ints % 2 == 0).tolist(), pa.bool_()),
        (texts, pa.string()),
        (texts, pa.large_string()),
        ([t.encode() for t in texts], pa.binary()),
    ][rng.integers(6)]
    nulls = rng.random(n) < rng.choice([0, 0.3])
    column = pa.array([None if null else v for v, null in zip(values, nulls, strict=True)], kind)
    if rng.random() < 0.3:
        column = column.dictionary_encode()
    return column.slice(int(rng.integers(0, n + 1)), int(rng.integers(0, n + 1)))


@pytest.mark.parametrize("seed", range(40))
def test_random_columns_hash_as_their_values(seed):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        check(drawn_column(rng), int(rng.integers(0, 2**64, dtype=np.uint64)))


def test_buffers_that_are_not_aligned_hash_as_copies_of_them():
    values = np.arange(100, dtype=np.int64)
    shifted = pa.py_buffer(b"x" + values.tobytes() + b"yz").slice(1)
    array = pa.Array.from_buffers(pa.int64(), 100, [None, shifted])
    assert hash_column(array, 1).tolist() == hash_column(pa.array(values), 1).tolist()


@pytest.mark.parametrize("offsets", [[0, 3, 2], [0, 9, 3], [0, -2, 3]])
def test_offsets_outside_the_text_are_refused(offsets):
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32)), pa.py_buffer(b"abc")]
    with pytest.raises(InputError, match="damaged"):
        hash_column(pa.StringArray.from_buffers(2, buffers[1], buffers[2]), 1)


@pytest.mark.parametrize("offsets", [[0, 2, 1], [0, -2, 1], [0, 9, 3]])
@pytest.mark.parametrize("bitmap", [None, b"\x01"])
def test_list_offsets_outside_the_values_are_refused(offsets, bitmap):
    validity = bitmap and pa.py_buffer(bitmap)
    buffers = [validity, pa.py_buffer(np.array(offsets, np.int32))]
    damaged = pa.Array.from_buffers(pa.list_(pa.int64()), 2, buffers, children=[pa.array([1, 2, 3])])
    with pytest.raises(InputError, match="damaged: offsets leave the values"):
        hash_column(damaged, 1)


@pytest.mark.parametrize("values", [list(range(77)), [0.5] * 77, [True] * 77, ["ab"] * 77, [[1, 2]] * 77])
def test_a_column_that_claims_more_rows_than_it_has_is_refused(values):
    """As read from a damaged message: the reader builds arrays without a check of their buffers."""
    batch = pa.record_batch({"a": values})
    true, claimed = (n.to_bytes(8, "little") for n in (77, 2**31))
    message = np.frombuffer(bytearray(batch.serialize().to_pybytes()), "S8")
    head = message[:32]  # the description, not the values
    head[head == true.rstrip(b"\0")] = claimed
    damaged = pa.ipc.read_record_batch(pa.py_buffer(message), batch.schema).column(0)
    assert len(damaged) == 2**31
    with pytest.raises(InputError, match="damaged"):
        hash_column(damaged, 1)


@pytest.mark.parametrize("index", [-1, 1, 5])
@pytest.mark.parametrize("kind", [pa.int8(), pa.int64()])
def test_indices_outside_the_dictionary_are_refused(index, kind):
    damaged = pa.DictionaryArray.from_arrays(pa.array([0, None, index], kind), pa.array(["a"]), safe=False)
    with pytest.raises(InputError, match=f"damaged: indices {min(index, 0)}..{max(index, 0)} leave a dictionary of 1"):
        hash_column(damaged, 1)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.uint64()])
def test_every_index_type_of_a_dictionary_is_read(kind):
    words = [str(i) for i in range(128)]  # so many that the place for nulls is beyond int8
    indices = pa.array([127, None, 0], kind)
    assert hash_column(pa.DictionaryArray.from_arrays(indices, words), 3).tolist() == [
        reference(value, 3) for value in ("127", None, "0")
    ]


def test_a_dictionary_of_lists_is_refused():
    with pytest.raises(InputError, match=r"got dictionary<values=list.*, wanted string"):
        hash_column(pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([["a", "b"], ["c"]])), 1)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, None, True])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(InputError, match=r"seed: got .*, wanted an integer in"):
        hash_column(pa.array([1]), seed)
    with pytest.raises(InputError, match="seed"):
        hash_bytes(b"", seed)


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_combining_hashes_the_keys_of_a_row_in_order(columns):
    keys = np.random.default_rng(2).integers(0, 2**64, (columns, 50), np.uint64)
    wanted = [xxhash.xxh64_intdigest(keys[:, i].tobytes(), 9) for i in range(50)]
    assert combine_keys(list(keys), 9).tolist() == wanted


def test_combining_depends_on_the_order():
    a, b = hash_column(pa.array(["a"]), 1), hash_column(pa.array(["b"]), 1)
    assert combine_keys([a, b], 1) != combine_keys([b, a], 1)


def test_combining_columns_without_rows():
    assert combine_keys([np.empty(0, np.uint64)], 1).shape == (0,)


def test_columns_that_cannot_be_combined_are_refused():
    keys = np.zeros(3, np.uint64)
    with pytest.raises(InputError, match="no columns"):
        combine_keys([], 1)
    with pytest.raises(InputError, match=r"keys\[1\]: got uint64 \[2\], wanted uint64 \[3\]"):
        combine_keys([keys, keys[:2]], 1)
    with pytest.raises(InputError, match=r"keys\[0\]: got int64 \[3\]"):
        combine_keys([keys.astype(np.int64)], 1)
    with pytest.raises(InputError, match="not C-contiguous"):
        combine_keys([np.zeros(6, np.uint64)[::2]], 1)
    with pytest.raises(InputError, match=r"keys\[0\]: got uint64 \[2147483648\] not C-contiguous"):
        combine_keys([np.broadcast_to(np.uint64(1), 2**31)], 1)
    with pytest.raises(InputError, match=r"keys\[1\]: got float64 \[3\]"):
        combine_keys([keys, np.full(3, np.nan)], 1)
    with pytest.raises(InputError, match=r"keys\[0\]: got int, wanted uint64"):
        combine_keys([5], 1)


@pytest.mark.parametrize("value", ["text", bytearray(b"a"), None, 5])
def test_bytes_of_another_kind_are_refused(value):
    with pytest.raises(InputError, match=r"value: got .*, wanted bytes"):
        hash_bytes(value, 1)


def test_ids_depend_on_all_named_columns():
    batch = pa.record_batch({"a": ["x", "x", "y", "x", None], "b": [1, 2, 1, 1, 1], "c": list("pqrst")})
    ids = [tuple(row) for row in ids128(batch, ["a", "b"]).tolist()]
    assert ids[0] == ids[3]
    assert len(set(ids)) == 4
    assert ids128(batch.slice(2, 2), ["a", "b"]).tolist() == [list(ids[2]), list(ids[3])]


def test_the_halves_of_an_id_are_independent():
    ids = ids128(pa.record_batch({"a": np.arange(2000)}), ["a"])
    agreeing = np.unpackbits((ids[:, 0] ^ ids[:, 1]).view(np.uint8)).mean()
    assert abs(agreeing - 0.5) < 0.01


def test_shards_are_used_evenly():
    counts = np.bincount(shard_of(pa.record_batch({"a": np.arange(30_000)}), ["a"], 3))
    assert len(counts) == 3
    assert counts.min() > 9_600


def test_invalid_id_columns_are_refused():
    batch = pa.record_batch({"a": [1], "tags": [["x"]]})
    with pytest.raises(InputError, match="column b is missing, the batch has a, tags"):
        ids128(batch, ["b"])
    with pytest.raises(InputError, match=r"column tags: got list<.*>, wanted one value per row"):
        shard_of(batch, ["tags"], 2)
    for shards in (0, -1, 2**31, float("nan"), None):
        with pytest.raises(InputError, match="shards: got"):
            shard_of(batch, ["a"], shards)
    with pytest.raises(InputError, match="batch: got Table, wanted a pyarrow RecordBatch"):
        shard_of(pa.table({"a": [1]}), ["a"], 2)
    with pytest.raises(InputError, match="column a is there 2 times"):
        ids128(pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), ["a"])
    with pytest.raises(InputError, match="no columns"):
        ids128(batch, [])
