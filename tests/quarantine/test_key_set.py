"""Sets of keys: read from files of lines, stored by digest, looked up in columns."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, InputError
from pipeline.quarantine.key_set import KeySet
from tests.support.manual_clock import ManualClock
from tests.support.world.key_files import CONFIG, WRITTEN, file_of


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path, CONFIG, ManualClock())


def column(name, values, kind):
    return pa.RecordBatch.from_pydict({name: pa.array(values, kind)})


def test_samples_with_one_of_the_values_match_and_a_null_never_does(tmp_path):
    keys = KeySet.read(CONFIG, "who", file_of(tmp_path, "u1\nü2\n"))
    assert (keys.column, keys.type, len(keys.hashes)) == ("user", "string", 2)
    assert keys.matches(column("user", ["u1", "u2", None, "ü2", ""], pa.string())).tolist() == [1, 0, 0, 1, 0]


def test_a_list_matches_by_any_of_its_elements(tmp_path):
    keys = KeySet.read(CONFIG, "tags", file_of(tmp_path, "x\n"))
    tags = [["x"], [], None, ["a", "x"], ["a"], ["x", "x"]]
    assert keys.matches(column("tags", tags, pa.list_(pa.string()))).tolist() == [1, 0, 0, 1, 0, 1]


def test_numbers_are_compared_by_value_and_a_raw_column_needs_no_field(tmp_path):
    keys = KeySet.read(CONFIG, "device", file_of(tmp_path, "7\n18446744073709551615\n007\n"))
    assert len(keys.hashes) == 2
    devices = [7, 2**64 - 1, 8, None]
    assert keys.matches(column("device", devices, pa.uint64())).tolist() == [1, 1, 0, 0]
    seen = KeySet.read(CONFIG, "seen", file_of(tmp_path, "-3"))
    assert seen.matches(column("seen", [[1, -3], [3]], pa.list_(pa.int64()))).tolist() == [1, 0]


def test_a_column_that_the_samples_lack_matches_nothing(tmp_path):
    keys = KeySet.read(CONFIG, "who", file_of(tmp_path, "u1\n"))
    assert not keys.matches(column("id", [1, 2], pa.int64())).any()


@pytest.mark.parametrize("content", ["b\na\n\nb\n", "b\r\na\r\n", "\ufeffa\nb", "\n\n\na\nb\n\n", "a\nb\na"])
def test_empty_lines_line_ends_order_and_repetition_make_no_difference(tmp_path, project, content):
    keys = KeySet.read(CONFIG, "who", file_of(tmp_path, content))
    assert keys.name() == KeySet.read(CONFIG, "user", file_of(tmp_path, "a\nb\n")).name()
    assert keys.name().count == 2


def test_a_file_of_several_blocks_is_read_whole(tmp_path):
    lines = [f"{i:019d}" for i in range(900_000)]  # 18 MB, more than two blocks
    keys = KeySet.read(CONFIG, "device", file_of(tmp_path, "\n".join(lines)))
    assert len(keys.hashes) == 900_000
    wanted = [0, 419_430, 419_431, 838_860, 838_861, 899_999, 900_000]
    assert keys.matches(column("device", wanted, pa.uint64())).tolist() == [1, 1, 1, 1, 1, 1, 0]


def test_a_stored_set_is_read_by_its_digest_without_the_file(tmp_path, project):
    path = file_of(tmp_path, "u1\nu2\n")
    keys = KeySet.read(CONFIG, "who", path)
    keys.store(project)
    keys.store(project)
    path.unlink()
    again = KeySet.stored(project, keys.name())
    assert (again.column, again.type) == ("user", "string")
    assert np.array_equal(again.hashes, keys.hashes)
    assert [found.name for found in (project.versions / "quarantine").iterdir()] == [f"{keys.name().digest}.keys"]


def test_the_digest_and_the_hashes_never_change(tmp_path):
    keys = KeySet.read(CONFIG, "who", file_of(tmp_path, "u1\nu2\n"))
    assert keys.hashes.tolist() == [2119338186672662875, 14731463650050719195]
    assert keys.name().digest == "f3ccd1d46e1a0b15f25fec3ec1298d9e"


def test_a_set_that_is_missing_damaged_or_another_one_is_named(tmp_path, project):
    keys, other = (KeySet.read(CONFIG, "who", file_of(tmp_path, text)) for text in ("u1\n", "u2\n"))
    with pytest.raises(DamagedError, match=r"\.keys is missing. hint: restore it from a copy of the folder, or run"):
        KeySet.stored(project, keys.name())
    other.store(project)
    folder = project.versions / "quarantine"
    path = folder / f"{keys.name().digest}.keys"
    (folder / f"{other.name().digest}.keys").rename(path)
    with pytest.raises(DamagedError, match=f"its digest is {other.name().digest}, the ledger has {keys.name().digest}"):
        KeySet.stored(project, keys.name())
    keys.store(project)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="section hashes has checksum"):
        KeySet.stored(project, keys.name())


def test_a_set_of_a_column_that_is_declared_otherwise_now_is_refused(tmp_path, project):
    keys = KeySet.read(CONFIG, "device", file_of(tmp_path, "7\n"))
    keys.store(project)
    events = WRITTEN["events"]
    columns = events["impressions"]["columns"] | {"device": "string"}
    changed = parse_config(WRITTEN | {"events": events | {"impressions": {"columns": columns}}})
    with pytest.raises(InputError, match="column device is string, its set of keys has uint"):
        KeySet.stored(Project(project.root, changed, project.clock), keys.name())


@pytest.mark.parametrize(
    ("field", "content", "problem"),
    [
        ("colour", "a", "field colour does not exist. known: who, tags, pair, hour, cents, id, user, device"),
        ("pair", "a", "field pair reads user × device by value, wanted one column as it is. hint: --keys COLUMN FILE"),
        ("hour", "7", "field hour reads at by hour, wanted one column as it is"),
        ("cents", "7", "field cents reads price by log2, wanted one column as it is"),
        ("price", "7", "column price is float, wanted string, int, uint, strings, ints, uints. hint: --where"),
        ("who", "", "holds no key. hint: one value of column user on each line"),
        ("who", "\n\r\n\n", "holds no key"),
        ("device", "7\n\n-8\n9\n", "line 3: got '-8', wanted uint64"),
        ("device", "7\n8 \n", "line 2: got '8 ', wanted uint64"),
        ("seen", "1\n2\n3\n4\n5\nsix\nseven\n", "line 6: got 'six', wanted int64"),
        ("who", b"a\nb\n\xff\xfe\n", r"line 3: got b'\\xff\\xfe', wanted UTF-8"),
        ("who", b"a" * 9_000_000, "has a line of over 1048576 bytes"),
    ],
)
def test_a_wrong_field_or_file_is_named_with_its_line(tmp_path, field, content, problem):
    with pytest.raises(InputError, match=problem):
        KeySet.read(CONFIG, field, file_of(tmp_path, content))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match="txt cannot be read: No such file or directory"):
        KeySet.read(CONFIG, "who", tmp_path / "absent.txt")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        KeySet.read(CONFIG, "who", tmp_path)
