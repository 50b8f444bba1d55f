"""Filters of runs, and reads of single values: every key with an entry is found, whatever else the run holds."""

import numpy as np
import pytest

from pipeline.errors import DamagedError, InputError
from pipeline.files.folder import local_file
from pipeline.formats.container import Container, Kind, write_container
from pipeline.versions.runs.key_filter import KeyFilter
from pipeline.versions.runs.run_files import DamagedFileError, RunFile, RunFiles
from pipeline.versions.runs.sorted_run import NO_ENTRY, REMOVAL, VALUE, RunArrays, encode_run, run_keys
from pipeline.versions.runs.stored_run import filter_section, run_sections

KIND = Kind(b"test", "make it again")
WIDTH = 12


@pytest.mark.parametrize("count", [0, 1, 25, 26, 10_000])
def test_every_key_passes_and_of_others_one_in_fifty_at_most(count):
    random = np.random.default_rng(count)
    keys, others = np.split(random.integers(0, 2**64, count + 20_000, np.uint64), [count])
    filter = KeyFilter.of_size(count)
    filter.add(keys)
    assert filter.may_contain(keys).all()
    assert filter.may_contain(others).mean() <= 0.02
    assert len(filter.bytes) == max(1, -(-count * 10 // 256)) * 32


def test_golden_bytes_of_a_filter():
    filter = KeyFilter.of_size(3)
    filter.add(np.uint64([0, 7, 2**64 - 1]))
    assert filter.bytes.tobytes().hex() == "0400100400022008011000000040102000804040050080000040840048200000"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_bytes_of_another_size_are_refused(size):
    with pytest.raises(InputError, match=f"filter: got {size} bytes, wanted a multiple of 32"):
        KeyFilter(np.zeros(size, np.uint8)).may_contain(np.uint64([1]))


def stored(tmp_path, seed, n=3_000):
    """(random entries as a dict, None for a removal; the path of a file with their run)."""
    random = np.random.default_rng(seed)
    keys = np.unique(random.integers(0, 20_000, n).astype(np.uint64))
    removed = keys[random.random(len(keys)) < 0.2]
    put = np.setdiff1d(keys, removed)
    values = random.integers(0, 256, (len(put), WIDTH)).astype(np.uint8)
    run = encode_run(RunArrays(put, removed, (values,)))
    path = tmp_path / f"{seed}.test"
    write_container(local_file(path), KIND, {}, run_sections("rows", run) | filter_section("rows", [put, removed]))
    assert run_keys(run).tolist() == keys.tolist()
    return dict(zip(put.tolist(), values, strict=True)) | dict.fromkeys(removed.tolist()), path


def opened(*paths):
    return RunFiles([RunFile.open(Container.held(local_file(path), KIND), "rows") for path in paths])


@pytest.mark.parametrize("seed", range(5))
def test_newest_file_with_an_entry_decides(tmp_path, seed):
    stored_files = [stored(tmp_path, 10 * seed + number, 2_000 * number + 1) for number in range(4)]
    files = opened(*(path for _, path in stored_files))
    wanted = np.unique(np.random.default_rng(seed).integers(0, 20_000, 500).astype(np.uint64))
    found = files.find(wanted, WIDTH)
    for at, key in enumerate(wanted.tolist()):
        having = [number for number, (entries, _) in enumerate(stored_files) if key in entries]
        if not having:
            assert found.entries[at] == NO_ENTRY
            continue
        assert found.files[at] == having[0]
        value = stored_files[having[0]][0][key]
        assert found.entries[at] == (REMOVAL if value is None else VALUE)
        assert value is None or found.values[at].tobytes() == value.tobytes()


def test_value_of_another_width_names_the_file(tmp_path):
    expected, path = stored(tmp_path, 1)
    key = np.uint64([next(key for key, value in expected.items() if value is not None)])
    with pytest.raises(DamagedError, match=f"{path.name} is damaged: rows: value of key {key[0]}: got {WIDTH} bytes"):
        opened(path).find(key, WIDTH + 1)


def test_held_file_is_read_after_it_was_deleted(tmp_path):
    expected, path = stored(tmp_path, 2)
    files = opened(path)
    path.unlink()
    assert (files.find(np.array(sorted(expected), np.uint64), WIDTH).entries != NO_ENTRY).all()


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_damaged_block_is_named(tmp_path, damage):
    expected, path = stored(tmp_path, 3)
    newer = stored(tmp_path, 4, n=1)[1]
    files = opened(newer, path)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content[: 1_000 if damage == "truncated" else None])
    message = rf"{path.name} is damaged: rows: block at 0, .* checksum does not match"
    with pytest.raises(DamagedFileError, match=message) as failure:
        files.find(np.array(sorted(expected), np.uint64), WIDTH)
    assert failure.value.number == 1


def test_missing_filter_is_damage(tmp_path):
    run = encode_run(RunArrays(np.uint64([1]), np.empty(0, np.uint64), (np.zeros((1, WIDTH), np.uint8),)))
    write_container(local_file(tmp_path / "run"), KIND, {}, run_sections("rows", run))
    with pytest.raises(DamagedError, match="it has no section rows/filter"):
        opened(tmp_path / "run")
