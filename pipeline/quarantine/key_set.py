"""Sets of values of one column, millions of them: read from an operator's file, stored by their digest.

A set is a container of kind `qkey` in `state/versions/quarantine/DIGEST.keys`, where DIGEST is its checksum. Header:
`column` and `type`, as declared in `[events.impressions]`. Section `hashes`: the XXH64 of the values under a fixed
seed, ascending uint64, each once. The operator's file is not needed any more.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.ascending import find_keys
from pipeline.arrays.block import ARROW_TYPES
from pipeline.arrays.keys import hash_column
from pipeline.arrays.types import Bools, Int64s, UInt64s
from pipeline.configuration.config import Config
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, InputError
from pipeline.files.interface import StoredFile
from pipeline.formats.container import Container, Kind, digest_of, encode_container
from pipeline.quarantine.columns import sample_column
from pipeline.versions.ledger.quarantine import KeySetName

_KIND = Kind(b"qkey", "restore it from a copy of the folder, or run: springtide quarantine list, quarantine remove ID")
_SEED = 0x51
_BLOCK_BYTES = 8 << 20
_LONGEST_LINE = 1 << 20
_TYPES = ("string", "int", "uint", "strings", "ints", "uints")


@dataclass(frozen=True)
class KeySet:
    """A set of values of one column.

    Attributes:
        column: a raw column of impressions.
        type: its declared type; a list column matches by any of its elements.
        hashes: [k] uint64, ascending, each once.
    """

    column: str
    type: str
    hashes: UInt64s

    @classmethod
    def read(cls, config: Config, field: str, path: Path) -> "KeySet":
        """The values in a file of UTF-8 lines, one on each; empty lines are ignored.

        Args:
            config: declares the column.
            field: a field that reads one column as it is, or a raw column.
            path: the file.

        Raises InputError, which names the line, and for an unknown field or a file without a value.
        """
        column, kind = _column_of(config, field)
        hashes = [hash_column(values, _SEED) for values in _values_in(path, kind)]
        if not hashes:
            raise InputError(f"{path} holds no key. hint: one value of column {column} on each line")
        return cls(column, kind, np.unique(np.concatenate(hashes)))

    @classmethod
    def stored(cls, project: Project, name: KeySetName) -> "KeySet":
        """The stored set. Raises DamagedError if it is missing or damaged, InputError if its column is no longer so."""
        stored = _file_of(project, name.digest)
        try:
            with Container.open(stored, _KIND) as file, file.parsing():
                if file.digest != name.digest:
                    raise file.damaged(f"its digest is {file.digest}, the ledger has {name.digest}")
                found = cls(file.header["column"], file.header["type"], file.array("hashes", np.uint64))
        except FileNotFoundError:
            raise DamagedError(f"{stored} is missing. hint: {_KIND.fix}") from None
        declared = project.config.events.impressions.columns.get(found.column)
        if declared != found.type:
            raise InputError(
                f"column {found.column} is {declared or 'not declared'}, its set of keys has {found.type}. "
                "hint: restore the column in [events.impressions], or add the keys again"
            )
        return found

    @property
    def encoded(self) -> bytes:
        """The stored form; equal sets have equal bytes."""
        return encode_container(_KIND, {"column": self.column, "type": self.type}, {"hashes": self.hashes})

    def name(self) -> KeySetName:
        """What the ledger stores of it."""
        return KeySetName(self.column, digest_of(self.encoded), len(self.hashes))

    def store(self, project: Project) -> None:
        """Write the set, durably, under its digest. Raises VersionError."""
        encoded = self.encoded
        _file_of(project, digest_of(encoded)).write([encoded])

    def matches(self, samples: pa.RecordBatch) -> Bools:
        """[n] which samples have one of the values. Raises InputError if the column has another type in them."""
        values = sample_column(samples, pa.field(self.column, ARROW_TYPES[self.type]))
        _, found = find_keys(hash_column(values, _SEED), self.hashes)
        if not pa.types.is_list(values.type):
            valid: Bools = np.asarray(values.is_valid(), np.bool_)
            return found & valid
        lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0).to_numpy(), np.int64)
        ends = np.cumsum(lengths)
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(found, dtype=np.int64)])
        return np.asarray(before[ends] > before[ends - lengths], np.bool_)


def _file_of(project: Project, digest: str) -> StoredFile:
    return project.version_files / f"quarantine/{digest}.keys"


def _column_of(config: Config, name: str) -> tuple[str, str]:
    """The raw column that is meant by a field, or by its own name, and its type. Raises InputError."""
    types: Mapping[str, str] = config.events.impressions.columns
    fields = {field.name: field for field in config.fields}
    if name not in fields and name not in types:
        known = ", ".join(dict.fromkeys([*fields, *types]))
        raise InputError(f"field {name} does not exist. known: {known}")
    column = name
    if name in fields:
        field = fields[name]
        if field.transform != "value" or len(field.columns) != 1 or field.columns[0] not in types:
            read = " × ".join(field.columns)
            raise InputError(
                f"field {name} reads {read} by {field.transform}, wanted one column as it is. "
                "hint: --keys COLUMN FILE, or --where"
            )
        column = field.columns[0]
    if types[column] not in _TYPES:
        raise InputError(f"column {column} is {types[column]}, wanted {', '.join(_TYPES)}. hint: --where")
    return column, types[column]


def _values_in(path: Path, kind: str) -> Iterator[pa.Array]:
    """The values of the lines, some millions of bytes at a time; no part is empty."""
    wanted = ARROW_TYPES[kind.removesuffix("s")]
    first = 1
    for block in _blocks_of(path):
        lines = _lines_of(path, block, first)
        filled = pc.greater(pc.binary_length(lines), 0)
        if len(texts := lines.filter(filled)):
            numbers = first + np.flatnonzero(filled.to_numpy(zero_copy_only=False))
            yield texts if wanted == pa.string() else _converted(path, texts, numbers, wanted)
        first += len(lines)


def _blocks_of(path: Path) -> Iterator[bytes]:
    """The file in parts of complete lines, each with its line feed."""
    try:
        with open(path, "rb") as file:
            rest = file.read(3).removeprefix(b"\xef\xbb\xbf")
            while read := file.read(_BLOCK_BYTES):
                cut = read.rfind(b"\n") + 1
                if cut:
                    yield rest + read[:cut]
                rest = read[cut:] if cut else rest + read
                if len(rest) > _LONGEST_LINE:
                    raise InputError(f"{path} has a line of over {_LONGEST_LINE} bytes. hint: one key on each line")
            if rest:
                yield rest if rest.endswith(b"\n") else rest + b"\n"
    except OSError as failure:
        raise InputError(f"{path} cannot be read: {os.strerror(failure.errno or 0)}. hint: --keys FIELD FILE") from None


def _lines_of(path: Path, block: bytes, first: int) -> pa.StringArray:
    """[lines] without line ends. Raises InputError for bytes that are not UTF-8."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    lines = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets.tobytes()), pa.py_buffer(block))
    try:
        lines.validate(full=True)
    except pa.ArrowInvalid:
        for number, line in enumerate(block.split(b"\n"), first):
            _check_text(path, number, line)
    return pc.ascii_rtrim(lines, "\r\n")


def _check_text(path: Path, number: int, line: bytes) -> None:
    try:
        line.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} line {number}: got {line[:40]!r}, wanted UTF-8. hint: convert the file") from None


def _converted(path: Path, lines: pa.StringArray, numbers: Int64s, wanted: pa.DataType) -> pa.Array:
    """The lines, which have these numbers in the file, as integers. Raises InputError."""
    try:
        return lines.cast(wanted)
    except pa.ArrowInvalid:
        place = _first_wrong(lines, wanted)
        raise InputError(
            f"{path} line {numbers[place]}: got {lines[place].as_py()[:40]!r}, wanted {wanted}. hint: one on each line"
        ) from None


def _first_wrong(lines: pa.StringArray, wanted: pa.DataType) -> int:
    """The index of the first line that is no number; there is one."""
    start, stop = 0, len(lines)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            lines.slice(start, middle - start).cast(wanted)
            start = middle
        except pa.ArrowInvalid:
            stop = middle
    return start
