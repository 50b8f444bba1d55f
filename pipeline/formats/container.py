"""The container: a JSON header and named sections, with every byte covered by a checksum. It is encoded once.

    0    8   magic "SPRINGTD"
    8    4   kind, four ASCII letters
    12   4   format version, uint32
    16       the sections, one after another, raw
         T   table: of each section its length uint64, its checksum, the length of its name uint16, its name (UTF-8)
         H   header: JSON (UTF-8, sorted keys)
    -24  4   T, uint32
    -20  4   H, uint32
    -16  16  checksum of everything but the sections, and so, through the table, of the complete container

A checksum is the first 16 bytes of SHA-256. Numbers are little-endian. A container is `bytes` or a file, which appears
under its name only when it is complete and durable.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.arrays.per_field import run_per_field
from pipeline.errors import DamagedError
from pipeline.files.folder import LocalFile
from pipeline.files.interface import StoredFile

MAGIC = b"SPRINGTD"
FORMAT = 3
_HEAD = struct.Struct("<8s4sI")
_CHECKSUM_BYTES = 16
_PIECE_BYTES = 16 << 20
_ENTRY = struct.Struct(f"<Q{_CHECKSUM_BYTES}sH")
_LENGTHS = struct.Struct("<II")
_TAIL_BYTES = _LENGTHS.size + _CHECKSUM_BYTES
_JSON = json.JSONEncoder(sort_keys=True, allow_nan=False, separators=(",", ":"))
_INVALID = (
    ValueError, LookupError, TypeError, AttributeError, OverflowError, StopIteration, RecursionError, struct.error,
)  # fmt: skip
"""Exceptions of parsing invalid contents."""

Section = bytes | memoryview | npt.NDArray[Any]


class WrittenFile(NamedTuple):
    """The size of a file that was written, and the checksum that it ends with (`digest_of`)."""

    size_bytes: int
    digest: str


@dataclass(frozen=True)
class Kind:
    """The kind of a container; a container of one kind is never read as another.

    Attributes:
        code: four ASCII letters.
        fix: what an operator does about a container that cannot be read, for messages.
        format: the version of the container and of what this kind holds.
    """

    code: bytes
    fix: str
    format: int = FORMAT

    @cached_property
    def head(self) -> bytes:
        """The 16 bytes that a container of this kind begins with."""
        return _HEAD.pack(MAGIC, self.code, self.format)


def encode_container(kind: Kind, header: Mapping[str, Any], sections: Mapping[str, Section]) -> bytes:
    """The container as bytes; equal arguments in equal order give equal bytes."""
    buffers = {name: _buffer(content) for name, content in sections.items()}
    checksums = {name: _checksum(buffer) for name, buffer in buffers.items()}
    return b"".join([kind.head, *buffers.values(), _footer(kind, header, _lengths(buffers), checksums)])


def digest_of(encoded: bytes) -> str:
    """The checksum that a container ends with, hex: it identifies the contents."""
    return encoded[-_CHECKSUM_BYTES:].hex()


def write_container(
    file: StoredFile, kind: Kind, header: Mapping[str, Any], sections: Mapping[str, Section]
) -> WrittenFile:
    """Write a new file, durable when this returns.

    Raises VersionError if it cannot be written (a full disk, for one); nothing is left then.
    """
    buffers = {name: _buffer(content) for name, content in sections.items()}
    footer = _footer(kind, header, _lengths(buffers), _checksums(buffers))
    chunks: list[bytes | memoryview] = [kind.head, *buffers.values(), footer]
    file.write(chunks)
    return WrittenFile(sum(map(len, chunks)), digest_of(footer))


class StreamedFile:
    """A file whose sections are written one after another, each in pieces: memory is bounded by a piece.

    Use it as a context manager: nothing is left of it unless it is finished. Methods raise as `write_container`.
    """

    def __init__(self, file: StoredFile, kind: Kind) -> None:
        self._kind, self._file = kind, file.create()
        self._lengths: dict[str, int] = {}
        self._checksums: dict[str, bytes] = {}
        self._file.write(kind.head)

    def __enter__(self) -> "StreamedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.discard()

    def write(self, name: str, pieces: Iterable[Section]) -> None:
        """Write a section as the concatenation of `pieces`."""
        sha, length = hashlib.sha256(), 0
        for piece in pieces:
            buffer = _buffer(piece)
            sha.update(buffer)
            self._file.write(buffer)
            length += len(buffer)
        self._lengths[name], self._checksums[name] = length, sha.digest()[:_CHECKSUM_BYTES]

    def finish(self, header: Mapping[str, Any]) -> WrittenFile:
        """Write the header; the file is durable when this returns."""
        footer = _footer(self._kind, header, self._lengths, self._checksums)
        self._file.write(footer)
        self._file.complete()
        return WrittenFile(_HEAD.size + sum(self._lengths.values()) + len(footer), digest_of(footer))


class Draft:
    """A file whose first sections are computed, written and hashed in threads while the other contents are computed.

    Use it as a context manager: nothing is left of it unless it is finished.
    """

    def __init__(self, file: StoredFile, kind: Kind, sections: Iterable[tuple[str, Section]]) -> None:
        """Begin with `sections`, by name, which a thread of the draft takes one by one. Raises as `write_container`."""
        self._kind, self._file = kind, file.create()
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="draft")
        self._written = self._workers.submit(self._write, sections)

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown()
        self._file.discard()

    def finish(self, header: Mapping[str, Any], sections: Mapping[str, Section]) -> WrittenFile:
        """Write the remaining `sections` and the header. Durable, returns and raises as `write_container`.

        Raises what computing the first sections raised.
        """
        rest = {name: _buffer(content) for name, content in sections.items()}
        checksums = _checksums(rest)
        lengths, hashed = self._written.result()
        lengths |= _lengths(rest)
        footer = _footer(self._kind, header, lengths, hashed | checksums)
        for buffer in rest.values():
            self._file.write(buffer)
        self._file.write(footer)
        self._file.complete()
        return WrittenFile(_HEAD.size + sum(lengths.values()) + len(footer), digest_of(footer))

    def _write(self, sections: Iterable[tuple[str, Section]]) -> tuple[dict[str, int], dict[str, bytes]]:
        """Lengths and checksums of the sections, by name."""
        lengths: dict[str, int] = {}
        hashing: dict[str, Future[bytes]] = {}
        self._file.write(self._kind.head)
        for name, content in sections:
            buffer = _buffer(content)
            lengths[name] = len(buffer)
            hashing[name] = self._workers.submit(_checksum, buffer)
            self._file.write(buffer)
        self._file.sync()
        return lengths, {name: hashed.result() for name, hashed in hashing.items()}


class Container:
    """An encoded container. A section is read and compared with its checksum at every request. Thread-safe.

    Attributes:
        name: for messages; a file's path.
        kind: one of those wanted.
        header: JSON.
        size_bytes: of all of it.
        digest: as `digest_of`.
    """

    def __init__(
        self,
        name: str,
        size: int,
        read: Callable[[int, int], bytearray | memoryview],
        *kinds: Kind,
        descriptor: int | None = None,
    ) -> None:
        """`read(offset, length)` returns bytes of the container. Use `of`, `open` or `held` (it has a `descriptor`)."""
        self.name, self.size_bytes, self._read, self._descriptor = name, size, read, descriptor
        self.kind = self._kind_among(kinds, bytes(read(0, min(_HEAD.size, size))))
        if size < _HEAD.size + _TAIL_BYTES:
            raise self.damaged(f"it has {size} bytes, wanted at least {_HEAD.size + _TAIL_BYTES}")
        lengths, checksum = _split(read(size - _TAIL_BYTES, _TAIL_BYTES), _LENGTHS.size)
        table_bytes, header_bytes = _LENGTHS.unpack(lengths)
        body_stop = size - _TAIL_BYTES - header_bytes - table_bytes
        if body_stop < _HEAD.size:
            raise self.damaged(f"it has {size} bytes, its table {table_bytes} and its header {header_bytes}")
        table, header = _split(read(body_stop, table_bytes + header_bytes), table_bytes)
        self.digest = self._check("header", checksum, self.kind.head, table, header, lengths).hex()
        with self.parsing():
            self.header: dict[str, Any] = dict(json.loads(str(header, "utf-8")))
            self._sections = self._places(table, body_stop)

    @classmethod
    def of(cls, encoded: bytes, *kinds: Kind, name: str) -> "Container":
        """A container of one of `kinds` in memory; its sections are not checked yet. Raises DamagedError."""
        content = memoryview(encoded)
        return cls(name, len(content), lambda offset, length: content[offset : offset + length], *kinds)

    @classmethod
    @contextmanager
    def open(cls, file: StoredFile, *kinds: Kind) -> Iterator["Container"]:
        """A container of one of `kinds` in a file, open inside.

        Raises FileNotFoundError, DamagedError as `of`, FilesError if the store of files is out of reach.
        """
        with file.open() as opened:
            yield cls(str(file), opened.size_bytes, opened.read, *kinds)

    @classmethod
    def held(cls, file: StoredFile, *kinds: Kind) -> "Container":
        """As `open`, on this machine's disk until nothing refers to it any more, also after the file was deleted."""
        opened = LocalFile(file.local())
        return cls(str(file), opened.size_bytes, opened.read, *kinds, descriptor=opened.descriptor)

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    @property
    def sections(self) -> list[str]:
        """The names of the sections, in order."""
        return list(self._sections)

    def section_bytes(self, name: str) -> int:
        """The length of a section; nothing is read. Raises DamagedError."""
        return self._place(name)[1]

    def section(self, name: str) -> bytes:
        """The bytes of a section. Raises DamagedError."""
        return bytes(self._checked(name))

    def check(self, name: str) -> None:
        """Compare a section with its checksum, in memory that does not grow with it. Raises DamagedError."""
        start, length, wanted = self._place(name)
        sha = hashlib.sha256()
        for offset in range(0, length, _PIECE_BYTES):
            sha.update(self._read(start + offset, min(_PIECE_BYTES, length - offset)))
        self._require(f"section {name}", wanted, sha.digest()[:_CHECKSUM_BYTES])

    def part(self, name: str, offset: int, length: int) -> npt.NDArray[np.uint8]:
        """Bytes of a section, as an array; they are **not** compared with a checksum. Raises DamagedError."""
        start, whole, _ = self._place(name)
        if not 0 <= offset <= offset + length <= whole:
            raise self.damaged(f"section {name} has {whole} bytes, wanted {length} from {offset} on")
        content = self._read(start + offset, length)
        if len(content) != length:
            raise self.damaged(f"section {name} ends before byte {offset + length}")
        return np.frombuffer(content, np.uint8)

    def place_in_file(self, name: str) -> tuple[int, int]:
        """If it is `held`: the descriptor of its file, and the offset of a section in it. Raises DamagedError."""
        assert self._descriptor is not None, f"{self.name} is not held"
        return self._descriptor, self._place(name)[0]

    def array(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A section as a one-dimensional array, a copy. Raises DamagedError."""
        content, wanted = self._checked(name), np.dtype(dtype)
        if len(content) % wanted.itemsize:
            raise self.damaged(f"section {name} has {len(content)} bytes, no multiple of {wanted.itemsize}")
        owned = content if isinstance(content, bytearray) else bytearray(content)
        return np.frombuffer(owned, wanted.newbyteorder("<")).astype(wanted, copy=False)

    @contextmanager
    def parsing(self) -> Iterator[None]:
        """Inside, exceptions of parsing become DamagedError: the checksum matches, so invalid contents were written."""
        try:
            yield
        except _INVALID as failure:
            raise self.damaged(f"it matches its checksum, but its contents are invalid: {failure!r}") from failure

    def damaged(self, problem: str) -> DamagedError:
        """The error for contents that cannot be used."""
        return DamagedError(f"{self.name} is damaged: {problem}. hint: {self.kind.fix}")

    def _kind_among(self, kinds: tuple[Kind, ...], head: bytes) -> Kind:
        for kind in kinds:
            if head == kind.head:
                return kind
        magic, code, form = _HEAD.unpack(head.ljust(_HEAD.size, b"\0"))
        wanted = " or ".join(f"{MAGIC + kind.code!r}" for kind in kinds)
        raise DamagedError(
            f"{self.name} begins with {magic + code!r} and format {form}, "
            f"wanted {wanted} and format {kinds[0].format}. hint: another release or program wrote it: {kinds[0].fix}"
        )

    def _places(self, table: memoryview, body_stop: int) -> dict[str, tuple[int, int, bytes]]:
        """By name: offset, length and checksum of a section."""
        places, offset, at = {}, _HEAD.size, 0
        while at < len(table):
            length, checksum, name_bytes = _ENTRY.unpack_from(table, at)
            at += _ENTRY.size + name_bytes
            places[str(table[at - name_bytes : at], "utf-8")] = (offset, length, checksum)
            offset += length
        if (offset, at) != (body_stop, len(table)):
            raise ValueError(f"sections end at {offset}, wanted {body_stop}; their table at {at}, wanted {len(table)}")
        return places

    def _place(self, name: str) -> tuple[int, int, bytes]:
        if name not in self._sections:
            raise self.damaged(f"it has no section {name}")
        return self._sections[name]

    def _checked(self, name: str) -> bytearray | memoryview:
        offset, length, checksum = self._place(name)
        content = self._read(offset, length)
        self._check(f"section {name}", checksum, content)
        return content

    def _check(self, part: str, wanted: bytes | memoryview, *contents: bytes | bytearray | memoryview) -> bytes:
        return self._require(part, wanted, _checksum(*contents))

    def _require(self, part: str, wanted: bytes | memoryview, computed: bytes) -> bytes:
        if computed != wanted:
            raise self.damaged(f"{part} has checksum {computed.hex()}, wanted {wanted.hex()}")
        return computed


def _split(content: bytearray | memoryview, at: int) -> tuple[memoryview, memoryview]:
    view = memoryview(content)
    return view[:at], view[at:]


def _buffer(content: Section) -> memoryview:
    if isinstance(content, bytes | memoryview):
        return memoryview(content)
    little = np.ascontiguousarray(content, dtype=content.dtype.newbyteorder("<"))
    return memoryview(little.reshape(-1).view(np.uint8).data)


def _checksum(*contents: bytes | bytearray | memoryview) -> bytes:
    sha = hashlib.sha256()
    for content in contents:
        sha.update(content)
    return sha.digest()[:_CHECKSUM_BYTES]


def _checksums(buffers: Mapping[str, memoryview]) -> dict[str, bytes]:
    return run_per_field(lambda name: _checksum(buffers[name]), buffers)


def _lengths(buffers: Mapping[str, memoryview]) -> dict[str, int]:
    return {name: len(buffer) for name, buffer in buffers.items()}


def _footer(kind: Kind, header: Mapping[str, Any], lengths: Mapping[str, int], checksums: Mapping[str, bytes]) -> bytes:
    """Everything after the sections."""
    names = {name: name.encode() for name in lengths}
    table = b"".join(_ENTRY.pack(lengths[n], checksums[n], len(utf8)) + utf8 for n, utf8 in names.items())
    text = _JSON.encode(header).encode()
    sizes = _LENGTHS.pack(len(table), len(text))
    return b"".join([table, text, sizes, _checksum(kind.head, table, text, sizes)])
