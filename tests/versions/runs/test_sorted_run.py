"""Sorted runs against a dict: entries survive, of several runs the newest decides, and a damaged block is refused."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.versions.runs.sorted_run import LAST_KEY, RunArrays, SortedRun, decode_run, encode_run, merge_runs


def keys_of(values):
    return np.array(sorted(values), np.uint64)


def run_of(changes, width=3):
    """A run of `changes`: by key a value as bytes, whose first `width` are a column, or None for a removal."""
    put = {key: value for key, value in changes.items() if value is not None}
    removed = keys_of(key for key, value in changes.items() if value is None)
    values = [put[int(key)] for key in keys_of(put)]
    column = np.frombuffer(b"".join(value[:width] for value in values), np.uint8).reshape(len(values), width)
    rest = np.frombuffer(b"".join(value[width:] for value in values), np.uint8)
    rest_bytes = np.array([len(value) - width for value in values], np.uint32)
    return encode_run(RunArrays(keys_of(put), removed, (column,), rest, rest_bytes))


def changes_in(run, width=3):
    arrays = decode_run(run, [width], with_rest=True)
    stops = np.cumsum(arrays.rest_bytes, dtype=np.int64)
    values = {
        int(key): arrays.columns[0][i].tobytes() + arrays.rest[stops[i] - arrays.rest_bytes[i] : stops[i]].tobytes()
        for i, key in enumerate(arrays.keys)
    }
    return values | dict.fromkeys(arrays.removed.tolist())


def random_changes(random, keys):
    chosen = random.choice(keys, random.integers(0, len(keys) + 1), replace=False)
    return {
        int(key): None if random.random() < 0.3 else random.bytes(3 + int(random.integers(0, 40))) for key in chosen
    }


def test_a_row_is_read_as_it_was_written():
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    keys = np.array([0, 7, LAST_KEY], np.uint64)
    read = decode_run(
        encode_run(RunArrays(keys, np.array([5], np.uint64), (rows[:, :1].copy(), rows[:, 1:].copy()))), [1, 3]
    )
    assert read.keys.tolist() == keys.tolist()
    assert read.removed.tolist() == [5]
    assert np.hstack(read.columns).tolist() == rows.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_merged_runs_are_a_dict_updated_by_each(seed):
    random = np.random.default_rng(seed)
    keys = np.unique(random.integers(0, 3_000, 1_500, np.uint64))
    changes = [random_changes(random, keys) for _ in range(random.integers(1, 6))]
    runs = [run_of(each) for each in changes]
    assert all(changes_in(run) == each for run, each in zip(runs, changes, strict=True))
    expected = {key: value for each in changes for key, value in each.items()}
    assert changes_in(merge_runs(runs, True)) == expected
    assert changes_in(merge_runs(runs, False)) == {k: v for k, v in expected.items() if v is not None}
    first, last = sorted(int(key) for key in random.choice(keys, 2))
    part = merge_runs(runs, True, first=first, last=last)
    assert changes_in(part) == {k: v for k, v in expected.items() if first <= k <= last}


def test_runs_merge_in_any_grouping_to_the_same_bytes():
    random = np.random.default_rng(1)
    keys = np.arange(2_000, dtype=np.uint64)
    runs = [run_of(random_changes(random, keys)) for _ in range(5)]
    at_once = merge_runs(runs, True)
    in_pairs = merge_runs([merge_runs(runs[:2], True), merge_runs(runs[2:4], True), runs[4]], True)
    assert at_once.bytes.tobytes() == in_pairs.bytes.tobytes()
    assert at_once.blocks.tobytes() == in_pairs.blocks.tobytes()


def test_a_key_that_is_put_and_removed_exists():
    column = np.zeros((1, 3), np.uint8)
    run = encode_run(RunArrays(keys_of([4]), keys_of([3, 4, 5]), (column,)))
    assert changes_in(run) == {3: None, 4: bytes(3), 5: None}


def test_an_empty_run_has_no_block():
    run = run_of({})
    assert len(run.blocks) == len(run.bytes) == 0
    assert changes_in(merge_runs([run, SortedRun.empty()], True)) == {}


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_of_a_block_or_its_index_is_refused(seed):
    random = np.random.default_rng(seed)
    run = run_of({key: bytes(20) for key in range(500)})
    for _ in range(200):
        content, blocks = run.bytes.copy(), run.blocks.copy()
        part = (content, blocks.view(np.uint8))[random.integers(0, 2)]
        at = int(random.integers(0, len(part)))
        if part is not content and at % 32 in range(8, 16):
            continue  # an offset only says where the block is read
        part[at] ^= 1 << int(random.integers(0, 8))
        with pytest.raises(InputError, match="block at"):
            decode_run(SortedRun(content, blocks), [3], with_rest=True)


def test_values_of_another_size_are_refused():
    run = run_of({1: bytes(3), 2: bytes(5)})
    with pytest.raises(InputError, match="value of key 2: got 5 bytes, wanted 3"):
        decode_run(run, [3])
    with pytest.raises(InputError, match="value of key 1: got 3 bytes, wanted 4"):
        decode_run(run, [4], with_rest=True)
    with pytest.raises(InputError, match="value of key 1: got 65535 bytes, wanted at most 65534"):
        encode_run(RunArrays(keys_of([1]), keys_of([]), (np.zeros((1, 65_535), np.uint8),)))


def test_keys_that_do_not_ascend_are_refused():
    keys = np.array([2, 2], np.uint64)
    with pytest.raises(InputError, match="keys must ascend: got 2 after 2"):
        encode_run(RunArrays(keys, keys[:0], (np.zeros((2, 3), np.uint8),)))
