"""One flipped bit in any durable file of a project is harmless or named, by everything that reads the file."""

import shutil

import pytest

from tests.fuzz.bits import durable_files, make_project, results, trials

TRIALS = 60


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flips")
    make_project(folder / "base")
    return folder / "base"


def test_the_project_has_every_kind_of_durable_file(base):
    kinds = {path.suffix for path in durable_files(base)}
    others = {".join", ".rows", ".version", ".delta", ".backup", ".index", ".keys"}
    assert kinds == {".sqlite", ".sqlite-wal", ".json", *others}


def test_an_untouched_copy_gives_every_reader_the_same(base, tmp_path):
    first, second = (results(shutil.copytree(base, tmp_path / name)) for name in "ab")
    assert first == second
    assert {kind for kind, _ in first.values()} == {"same"}


def test_no_flipped_bit_is_silent(base):
    found = list(trials(base, base.parent, TRIALS, seed=1))
    assert [silent for _, silent, _ in found if silent] == []
    assert sum(named > 0 for _, _, named in found) > TRIALS // 4
