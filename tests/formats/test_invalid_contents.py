"""Invalid contents with a matching checksum, as a forger or a bug writes them: named as damage, without a crash.

Findings of fuzzing are added here. Flipped bits and cut files are in the tests of each format.
"""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import DamagedError
from pipeline.files.folder import local_file
from pipeline.formats.container import Container, encode_container
from pipeline.formats.schemas import decode, encode, load_schema
from pipeline.logs.archive.archive_log import ArchiveLog
from pipeline.model.network import weights
from pipeline.samples.state import state_files
from pipeline.samples.state.snapshot import HEAD, take_snapshot
from pipeline.versions.deltas.coded_rows import ChangedRows, announced_rows, code_rows
from pipeline.versions.deltas.delta import DENSE_BLOCK, DenseChange, decode_delta, decode_heading, encode_delta
from pipeline.versions.deltas.published_files import delta_manifest, read_delta_manifest
from pipeline.versions.deltas.row_bounds import RowBounds
from pipeline.versions.store import files
from pipeline.versions.store.version_store import VersionStore
from tests.fuzz import seals
from tests.support.join_bench import Bench, S
from tests.support.synthetic.commits import World, project_in
from tests.support.world.join_state import decode_join, encode_join
from tests.versions.deltas.test_delta import delta, field_delta

ROWS = {
    "cut off": lambda rows: rows[:-2],
    "left over": lambda rows: rows + b"\0\0",
    "half a word": lambda rows: rows + b"\0",
    "less than a state": lambda rows: rows[:3],
    "another state": lambda rows: bytes([rows[0] ^ 1]) + rows[1:],
}


def spoiled_delta(field: dict) -> bytes:
    schema = load_schema("delta")
    record = decode(schema, encode_delta(delta(fields={"user": field_delta(known=40, new=40)})))
    [entry] = record["fields"]
    return seals.delta(encode(schema, {**record, "fields": [{**entry, **field(entry)}]}))


@pytest.mark.parametrize("name", ROWS)
def test_a_delta_whose_rows_are_no_valid_stream_is_damaged(name):
    decode_delta(spoiled_delta(dict))
    with pytest.raises(DamagedError, match=r"coded rows of .* hint: "):
        decode_delta(spoiled_delta(lambda entry: {"rows": ROWS[name](entry["rows"])}))


@pytest.mark.parametrize("dim", [0, -1, 65_537, 2**31 - 1])
def test_a_delta_of_impossible_dim_is_damaged(dim):
    with pytest.raises(DamagedError, match=f"has dim {dim}, wanted"):
        decode_delta(spoiled_delta(lambda entry: {"dim": dim}))


def test_a_delta_of_more_rows_than_allowed_is_refused_before_they_are_decoded():
    encoded = encode_delta(delta(fields={"a": field_delta(known=40), "b": field_delta(dim=8)}))
    size = sum(
        announced_rows(entry["rows"]).decoded_bytes(entry["dim"])
        for entry in decode(load_schema("delta"), encoded)["fields"]
    )
    decode_delta(encoded, RowBounds(max_bytes=size))
    with pytest.raises(DamagedError, match=f"announces rows of {size} bytes, allowed are {size - 1}"):
        decode_delta(encoded, RowBounds(max_bytes=size - 1))
    broken = spoiled_delta(lambda entry: {"rows": entry["rows"][:-2]})
    with pytest.raises(DamagedError, match=r"allowed are 10\. hint: serving\.max_delta_bytes"):
        decode_delta(broken, RowBounds(max_bytes=10))


def test_a_change_of_more_dense_weights_than_allowed_is_refused_before_it_is_decoded():
    rows = np.arange(9, dtype=np.uint32), np.zeros(9, np.bool_), np.empty(0, np.uint64), np.empty(0, np.uint32)
    bits, payload = np.full(9, 16, np.uint8), np.zeros(9 * (1 + 2 * DENSE_BLOCK), np.uint8)
    blocks = code_rows(ChangedRows(*rows, bits, payload, np.empty(0, np.uint64)), DENSE_BLOCK)
    encoded = encode_delta(delta(fields={}, dense=DenseChange(bytes(16), None, blocks)))
    size = announced_rows(blocks).decoded_bytes(DENSE_BLOCK)
    assert size > 20 * len(blocks)
    decode_delta(encoded, RowBounds(max_bytes=size))
    with pytest.raises(DamagedError, match=f"announces rows of {size} bytes, allowed are {size - 1}"):
        decode_delta(encoded, RowBounds(max_bytes=size - 1))


def test_a_delta_of_other_rows_than_its_manifest_has_is_refused_before_they_are_decoded():
    encoded = spoiled_delta(lambda entry: {"rows": entry["rows"][:-2]})  # 40 known rows, 40 new ones, 3 removed keys
    for bounds, problem in (
        (RowBounds(rows=79), "announces 80 rows, its manifest has 79"),
        (RowBounds(rows=80, removed=0), "announces 3 removed keys, its manifest has 0"),
        (RowBounds(rows=80, removed=3), "coded rows of"),
    ):
        with pytest.raises(DamagedError, match=problem):
            decode_delta(encoded, bounds)


def test_the_heading_of_a_delta_needs_none_of_its_rows():
    whole = decode_delta(encode_delta(delta(fields={"user": field_delta(known=40, new=40)})))
    heading = decode_heading(spoiled_delta(lambda entry: {"rows": entry["rows"][:-2]}))
    assert replace(heading, fields={}) == replace(whole, fields={})
    assert {name: len(change) for name, change in heading.fields.items()} == {"user": 0}


def test_a_manifest_of_any_length_is_read_to_a_bound(tmp_path):
    path = tmp_path / "full-0-1.json"
    path.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(DamagedError, match="has 1048578 bytes, wanted at most 1048576"):
        read_delta_manifest(local_file(path))


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("version")
    files.write_commit(local_file(folder / "version"), World(VersionStore(project_in(folder))).build())
    return (folder / "version").read_bytes()


HEADERS = {
    "no object": lambda header: [],
    "fields that are a list": lambda header: {**header, "fields": []},
    "no dim": lambda header: {**header, "fields": {"user": {"row_bytes": 24}}},
    "rows of another size": lambda header: {**header, "fields": {"user": {"dim": 4, "row_bytes": 7}}},
    "negative rows": lambda header: {**header, "fields": {"user": {"dim": 4, "row_bytes": -1}}},
    "served entries of another dim": lambda header: {**header, "fields": {"user": {"dim": 5, "row_bytes": 24}}},
    "filters that are a name": lambda header: {**header, "filters": {"x": {}}},
    "no offset": lambda header: {name: value for name, value in header.items() if name != "offset"},
    "an id of another type": lambda header: {**header, "id": 7},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_version_file_with_an_invalid_header_is_named(name, version, tmp_path):
    path = tmp_path / "odd.version"
    path.write_bytes(with_header(version, HEADERS[name]))
    with pytest.raises(DamagedError, match=r"odd\.version"):
        files.read_commit(local_file(path))


TABLES = {
    "no sections": lambda table: b"",
    "a section of another length": lambda table: with_entry(table, length=1),
    "a section that ends before it begins": lambda table: with_entry(table, length=2**64 - 1),
    "a section beyond all memory": lambda table: with_entry(table, length=2**60),
    "a name beyond the table": lambda table: with_entry(table, name_bytes=2**16 - 1),
    "a section without name": lambda table: with_entry(table, name_bytes=0),
    "a name that is no UTF-8": lambda table: table[: ENTRY.size] + b"\xff" + table[ENTRY.size + 1 :],
    "half an entry": lambda table: table + table[: ENTRY.size - 1],
}
ENTRY = struct.Struct("<Q16sH")


def with_entry(table: bytes, **changes: int) -> bytes:
    """The table with another first entry."""
    length, checksum, name_bytes = ENTRY.unpack_from(table)
    entry = {"length": length, "name_bytes": name_bytes, **changes}
    return ENTRY.pack(entry["length"], checksum, entry["name_bytes"]) + table[ENTRY.size :]


@pytest.mark.parametrize("name", TABLES)
def test_a_version_file_with_an_invalid_table_is_named(name, version, tmp_path):
    path, parts = tmp_path / "odd.version", seals.ContainerParts.of(version)
    path.write_bytes(parts._replace(table=TABLES[name](parts.table)).sealed())
    with pytest.raises(DamagedError, match=r"odd\.version"):
        files.read_commit(local_file(path))


def test_a_version_file_of_another_kind_is_named(version, tmp_path):
    path, parts = tmp_path / "odd.version", seals.ContainerParts.of(version)
    path.write_bytes(parts._replace(head=files.TOUCHED.head).sealed())
    with pytest.raises(DamagedError, match=r"odd\.version begins with b'SPRINGTDkeys'"):
        files.read_commit(local_file(path))


def with_header(container: bytes, change) -> bytes:
    """The container with another header and the checksum that belongs to it; sections stay as they are."""
    parts = seals.ContainerParts.of(container)
    return parts._replace(header=json.dumps(change(json.loads(parts.header))).encode()).sealed()


def test_a_version_file_with_the_same_header_is_read(version, tmp_path):
    path = tmp_path / "same.version"
    path.write_bytes(with_header(version, dict))
    assert files.read_commit(local_file(path)).fields["user"].dim == 4


MANIFESTS = {
    "a number as text": {"rows": "5"},
    "a level there is none of": {"level": "hourly"},
    "an entry too many": {"more": 1},
    "another folder's file": {"file": "../x.delta"},
    "no name": {"file": ""},
    "a name that is none": {"file": "\0.delta"},
    "a checksum that is none": {"sha256": True},
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_an_invalid_manifest_is_named(name, tmp_path):
    made = delta()
    stem = f"{made.level}-{made.from_sequence}-{made.to_sequence}"
    path = tmp_path / made.to_version.folder / f"{stem}.json"
    path.parent.mkdir(parents=True)
    plain = json.loads(delta_manifest(made, encode_delta(made), f"{stem}.delta").to_json())
    path.write_bytes(seals.manifest(json.dumps(plain).encode()))
    assert read_delta_manifest(local_file(path)).file == f"{stem}.delta"
    path.write_bytes(seals.manifest(json.dumps({**plain, **MANIFESTS[name]}).encode()))
    with pytest.raises(DamagedError, match=r"manifest .*\.json"):
        read_delta_manifest(local_file(path))


def test_a_deeply_nested_manifest_is_named(tmp_path):
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(DamagedError, match=r"manifest .*x\.json cannot be read"):
        read_delta_manifest(local_file(tmp_path / "x.json"))


ENTRIES = {
    "no list": 5,
    "no shape": [["a", "<f4"]],
    "an open dimension": [["a", "<f4", [-1]]],
    "another shape": [["a", "<f4", [3]]],
    "a shape beyond all memory": [["a", "<f4", [2**31, 2**31, 2**31]]],
    "a fraction as a size": [["a", "<f4", [2.0]]],
    "a fraction as the size of nothing": [["a", "<f4", [2]], ["b", "<f4", [0.0, 1]]],
    "a truth value as a size": [["a", "<f4", [2, True]]],
    "text as a shape": [["a", "<f4", "2"]],
    "sizes beside a 0": [["a", "<f4", [2]], ["b", "<f4", [0, 2**62, 2**62]]],
    "axes without end": [["a", "<f4", [2, *[1] * 80]]],
    "a dtype to be parsed": [["a", "f4,", [2]]],
    "objects": [["a", "|O", [1]]],
    "one name twice": [["a", "<f4", [1]], ["a", "<f4", [1]]],
    "bytes left over": [["a", "<f4", [1]]],
}


@pytest.mark.parametrize("name", ENTRIES)
def test_dense_weights_with_an_invalid_header_are_damaged(name):
    assert weights.unpack(dense_with([["a", "<f4", [2]]]))["a"].tolist() == [0.0, 0.0]
    with pytest.raises(DamagedError, match=r"dense weights is damaged: .* contents are invalid"):
        weights.unpack(dense_with(ENTRIES[name]))


def dense_with(entries) -> bytes:
    return encode_container(weights.DENSE, {"arrays": entries}, {"arrays": bytes(8)})


STATES = {
    "no object": lambda header: [],
    "a bucket without serial": lambda header: {**header, "buckets": [[None, *header["buckets"][0][1:]]]},
    "a bucket without its segment": lambda header: {**header, "buckets": [[*header["buckets"][0][:3], 0]]},
    "a segment of no rows": lambda header: with_segment(header, stop=0),
    "a segment of more rows": lambda header: with_segment(header, stop=2),
    "a segment that begins elsewhere": lambda header: with_segment(header, first=1),
    "another bucket's segment": lambda header: with_segment(header, serial=7),
    "no segments": lambda header: {**header, "buckets": [], "segments": []},
    "progress of another kind": lambda header: {**header, "progress": 5},
}


def with_segment(header: dict, **other: object) -> dict:
    (segment,) = header["segments"]
    names = ("serial", "first", "stop", "digest", "length")
    return {**header, "segments": [list({**dict(zip(names, segment, strict=True)), **other}.values())]}


@pytest.mark.parametrize("name", STATES)
def test_join_state_with_an_invalid_header_is_damaged(name):
    bench = Bench()
    bench.impression(S)
    bench.finish()
    head, segment = encode_join(bench.join)

    def decoded(change):
        return decode_join(bench.config, 0, bench.partitions, [with_header(head, change), segment])

    assert len(decoded(dict).held) == 1
    with pytest.raises(DamagedError, match=r"contents are invalid|wanted"):
        decoded(STATES[name])


SECTIONS = {
    "flags missing": {"flags": b""},
    "flags left over": {"flags": bytes(2)},
    "half a click": {"pending": bytes(10)},
    "clicks without columns": {"candidates_columns": b""},
    "half a link": {"links": bytes(8)},
    "half an emitted position": {"emitted": bytes(7)},
}


@pytest.mark.parametrize("name", SECTIONS)
def test_join_state_whose_sections_do_not_fit_together_is_damaged(name):
    bench = Bench()
    bench.impression(S)
    bench.finish()
    head, segment = encode_join(bench.join)
    container = Container.of(head, HEAD, name="head")
    sections = {each: container.section(each) for each in container.sections}
    odd = encode_container(HEAD, container.header, sections | SECTIONS[name])
    with pytest.raises(DamagedError, match=r"join state|columns"):
        decode_join(bench.config, 0, bench.partitions, [odd, segment])


@pytest.mark.parametrize("name", [5, "../1.join", "sub/1.join", "1.txt", ""])
@pytest.mark.parametrize("of", ["head", "segment"])
def test_a_round_that_names_a_file_in_another_folder_is_damaged(name, of, tmp_path):
    bench = Bench()
    bench.impression(S)
    bench.finish()
    shard = state_files.write_shard(tmp_path, "1.join", take_snapshot(bench.join), (3, 4))
    state_files.write_state_manifest(tmp_path, state_files.StateManifest(2, {"samples": "log"}, (shard,)))
    path = tmp_path / "ROUND.json"
    document = json.loads(path.read_bytes())
    [named] = document["round"]["shards"]
    if of == "segment":
        [named], name = named["segments"], f"../{name}"
    named["name"] = name
    path.write_bytes(seals.round_manifest(json.dumps(document).encode()))
    with pytest.raises(DamagedError, match=r"ROUND\.json is damaged"):
        state_files.read_state_manifest(tmp_path)


@pytest.mark.parametrize("parts", [None, {}, [[]], [{"begin": "x", "end": 2, "files": []}], [{"begin": 0, "end": 2}]])
def test_an_archive_with_invalid_contents_is_named(parts, tmp_path):
    (tmp_path / "topic").mkdir()
    (tmp_path / "topic" / "topic.json").write_text(json.dumps({"log_id": "a", "partitions": parts}))
    with pytest.raises(DamagedError, match=r"topic\.json is damaged"):
        ArchiveLog(tmp_path).partitions("topic")
