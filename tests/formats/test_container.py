"""The container: golden bytes, both readers, and everything that is refused."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from pipeline.errors import DamagedError
from pipeline.files.folder import local_file
from pipeline.formats.container import (
    Container,
    Draft,
    Kind,
    StreamedFile,
    digest_of,
    encode_container,
    write_container,
)

KIND, OTHER = Kind(b"test", "write it again"), Kind(b"othr", "write the other again")
SECTIONS = {"first": np.arange(3, dtype=np.uint32), "second": b"bytes", "none": b"", "view": memoryview(b"abc")}
HEADER = {"b": [1, None], "a": "é"}


def sha128(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()[:16]


def test_golden_bytes_of_a_container():
    encoded = encode_container(KIND, {"b": 1, "a": 2}, {"x": np.array([1, 2], np.uint16)})
    head, body = b"SPRINGTD" + b"test" + b"\x03\0\0\0", b"\x01\0\x02\0"
    table = b"\x04\0\0\0\0\0\0\0" + sha128(body) + b"\x01\0" + b"x"
    header, lengths = b'{"a":2,"b":1}', b"\x1b\0\0\0" + b"\x0d\0\0\0"
    assert encoded == head + body + table + header + lengths + sha128(head + table + header + lengths)
    assert digest_of(encoded) == "ddc08413d9ce54baf3656e58faac97c2"


@pytest.mark.parametrize("how", ["bytes", "file", "draft", "streamed"])
def test_sections_and_header_come_back(how, tmp_path):
    path, encoded = tmp_path / "file", encode_container(KIND, HEADER, SECTIONS)
    if how == "file":
        assert write_container(local_file(path), KIND, HEADER, SECTIONS) == (len(encoded), digest_of(encoded))
        assert path.read_bytes() == encoded
    if how == "draft":
        first, *rest = SECTIONS.items()
        with Draft(local_file(path), KIND, [first]) as draft:
            assert draft.finish(HEADER, dict(rest)) == (len(encoded), digest_of(encoded))
        assert path.read_bytes() == encoded
    if how == "streamed":
        with StreamedFile(local_file(path), KIND) as streamed:
            for name, content in SECTIONS.items():
                streamed.write(name, [content[:1], content[1:]])
            assert streamed.finish(HEADER) == (len(encoded), digest_of(encoded))
        assert path.read_bytes() == encoded
    if how == "bytes":
        check(Container.of(encoded, OTHER, KIND, name="it"), encoded)
    else:
        with Container.open(local_file(path), OTHER, KIND) as container:
            check(container, encoded)
        assert list(tmp_path.iterdir()) == [path]


def check(container, encoded):
    assert (container.kind, container.header, container.digest) == (KIND, HEADER, digest_of(encoded))
    assert container.sections == ["first", "second", "none", "view"]
    assert ("first" in container, "third" in container) == (True, False)
    assert [container.section_bytes(name) for name in container.sections] == [12, 5, 0, 3]
    assert [container.section(name) for name in ("second", "none", "view")] == [b"bytes", b"", b"abc"]
    first = container.array("first", np.uint32)
    assert first.tolist() == [0, 1, 2]
    first[0] = 7  # a copy
    assert container.array("first", np.uint32).tolist() == [0, 1, 2]
    with pytest.raises(DamagedError, match="section second has 5 bytes, no multiple of 4"):
        container.array("second", np.uint32)
    with pytest.raises(DamagedError, match="no section third"):
        container.section("third")


def test_a_draft_that_is_not_finished_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), Draft(local_file(tmp_path / "file"), KIND, SECTIONS.items()):
        raise KeyError("meanwhile")
    assert list(tmp_path.iterdir()) == []


def read_all(value: bytes, *kinds: Kind):
    container = Container.of(value, *kinds, name="it")
    return [container.section(name) for name in container.sections]


def read_file(path, *kinds: Kind):
    with Container.open(local_file(path), *kinds) as file:
        return [file.section(name) for name in file.sections]


def test_every_flipped_bit_and_every_cut_is_damage(tmp_path):
    encoded, path = encode_container(KIND, HEADER, SECTIONS), tmp_path / "file"
    flipped = (encoded[:i] + bytes([encoded[i] ^ 1 << i % 8]) + encoded[i + 1 :] for i in range(len(encoded)))
    cut = (encoded[:length] for length in range(len(encoded)))
    for damaged in (*flipped, *cut, encoded + b"\0", encoded + encoded):
        with pytest.raises(DamagedError, match=r"^it .* hint: .*write it again"):
            read_all(damaged, KIND)
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"/file .* hint: .*write it again"):
            read_file(path, KIND)


def test_a_section_is_checked_when_it_is_read_and_not_before():
    encoded = encode_container(KIND, {}, {"good": b"good", "bad": b"bad"})
    container = Container.of(encoded.replace(b"bad", b"BAD", 1), KIND, name="it")
    assert container.section("good") == b"good"
    with pytest.raises(DamagedError, match="it is damaged: section bad has checksum"):
        container.section("bad")


@pytest.mark.parametrize(
    ("begin", "found"),
    [
        (OTHER.head, "b'SPRINGTDothr' and format 3"),
        (KIND.head[:12] + b"\x04\0\0\0", "b'SPRINGTDtest' and format 4"),
        (b"FRESHVER" + b"\x01\0\0\0" * 2, "b'FRESHVER.*"),
        (b"FRSHJOIN" + b"\x02\0\0\0" * 2, "b'FRSHJOIN.*"),
        (b"FRSHDNSE" + b"\x01\0\0\0" * 2, "b'FRSHDNSE.*"),
        (b"SQLite format 3\0", "b'SQLite forma'"),
        (b"", "b'.*' and format 0"),
    ],
)
def test_anything_else_is_refused_with_what_it_begins_with_and_what_was_wanted(begin, found):
    wanted = "wanted b'SPRINGTDtest' and format 3. hint: another release or program wrote it: write it again"
    with pytest.raises(DamagedError, match=f"^it begins with {found}.*, {wanted}"):
        read_all(begin + encode_container(KIND, {}, {})[16:] if begin else begin, KIND)


def test_the_overhead_is_small():
    sizes = [len(encode_container(KIND, {}, {f"s{i}": b"" for i in range(n)})) for n in range(4)]
    assert sizes[0] == 16 + len(b"{}") + 24
    assert {after - before for before, after in pairwise(sizes)} == {26 + len(b"s0")}


def test_a_streamed_file_that_is_not_finished_leaves_nothing(tmp_path):
    with StreamedFile(local_file(tmp_path / "file"), KIND) as streamed:
        streamed.write("first", [b"abc"])
    assert list(tmp_path.iterdir()) == []


def test_part_of_a_section_is_read_within_its_bounds():
    container = Container.of(encode_container(KIND, HEADER, SECTIONS), KIND, name="it")
    assert container.part("second", 1, 3).tobytes() == b"yte"
    for offset, length in ((0, 6), (5, 1), (-1, 2), (2, -1)):
        with pytest.raises(DamagedError, match="it is damaged: section second has 5 bytes, wanted"):
            container.part("second", offset, length)
