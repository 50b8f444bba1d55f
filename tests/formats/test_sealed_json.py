"""Small durable JSON files: every change of a byte is harmless or named, and a file of another kind is refused."""

import pytest

from pipeline.errors import DamagedError
from pipeline.formats.sealed_json import SealedJson

SEALED = SealedJson("list", 2, "restore it")
CONTENTS = {"starts": {"clicks/0": 4}, "done": True, "name": "ü", "share": 0.5}


def test_contents_are_read_as_written(tmp_path):
    SEALED.write(tmp_path / "a.json", CONTENTS)
    assert SEALED.read(tmp_path / "a.json") == CONTENTS


def test_every_flipped_bit_is_harmless_or_named(tmp_path):
    path, encoded, named = tmp_path / "a.json", SEALED.encode(CONTENTS), 0
    for at in range(len(encoded)):
        for bit in range(8):
            damaged = bytearray(encoded)
            damaged[at] ^= 1 << bit
            try:
                assert SEALED.decode(bytes(damaged), path) == CONTENTS
            except DamagedError:
                named += 1
    assert named > 7 * len(encoded)


@pytest.mark.parametrize("left", [0, 1, 40, -1])
def test_a_file_cut_at_any_length_is_named(tmp_path, left):
    path = tmp_path / "a.json"
    path.write_bytes(SEALED.encode(CONTENTS)[:left])
    with pytest.raises(DamagedError, match=r"a\.json is damaged: .* hint: restore it"):
        SEALED.read(path)


def test_a_file_of_another_kind_or_format_is_refused(tmp_path):
    path = tmp_path / "a.json"
    SealedJson("set", 2, "").write(path, CONTENTS)
    with pytest.raises(DamagedError, match="its contents have checksum"):
        SEALED.read(path)
    SealedJson("list", 1, "").write(path, CONTENTS)
    with pytest.raises(DamagedError, match="it has format 1, this release reads 2"):
        SEALED.read(path)


def test_a_file_of_an_earlier_release_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"digest": "ab", "run": 1}')
    with pytest.raises(DamagedError, match="it has no format, another release wrote it"):
        SEALED.read(tmp_path / "a.json")


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(DamagedError, match=r"a\.json is damaged: Is a directory"):
        SEALED.read(tmp_path / "a.json")
