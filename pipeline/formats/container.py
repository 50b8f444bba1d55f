"""A file of named sections that is written once and never changed, every byte of it covered by a checksum.

    0   8   magic "FRESHVER"
    8   4   format version, uint32
    12  4   length H of the header, uint32
    16  H   header: JSON (UTF-8, sorted keys), perhaps spaces; `sections` lists name, length and SHA-256 of each
    …       the sections in that order, one after another, raw
    -32 32  SHA-256 of the bytes 0 to 16 + H, and so, through the sections' own checksums, of the whole file

Numbers are little-endian. A file appears under its name only when it is whole and durable.
"""

import hashlib
import json
import operator
import os
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.per_field import run_per_field
from pipeline.errors import DamagedError, VersionError
from pipeline.formats.atomic_file import AtomicFile, write_atomically

MAGIC = b"FRESHVER"
FORMAT = 1
_PREFIX = struct.Struct("<8sII")
_CHECKSUM_BYTES = 32

Section = bytes | memoryview | npt.NDArray[Any]


def write_container(path: Path, header: Mapping[str, Any], sections: Mapping[str, Section]) -> int:
    """Write a new file at `path`, durable when this returns; returns its size in bytes.

    Raises:
        VersionError: where it cannot be written (a full disk, for one). Then nothing is left of it.
    """
    buffers = {name: _buffer(content) for name, content in sections.items()}
    prefix = _prefix(header, buffers, _checksums(buffers))
    chunks: list[bytes | memoryview] = [prefix, *buffers.values(), hashlib.sha256(prefix).digest()]
    write_atomically(path, chunks)
    return sum(len(chunk) for chunk in chunks)


class Draft:
    """A file whose first sections are written and hashed, in threads of its own, while the rest is worked out.

    Room is left for the header, which comes last. Use it as a context manager: unless finished, nothing is left.
    """

    def __init__(self, path: Path, sections: Mapping[str, Section], room: int) -> None:
        """Begin with `sections`, which must not change; `room` bytes should hold the header, or all is written anew."""
        self._path, self._room = path, room
        self._buffers = {name: _buffer(content) for name, content in sections.items()}
        self._file = AtomicFile(path)
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="draft")
        self._written = self._workers.submit(self._write)
        self._hashed = self._workers.submit(_checksums, self._buffers)

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown()
        self._file.discard()

    def finish(self, header: Mapping[str, Any], sections: Mapping[str, Section]) -> int:
        """Write what is missing of `sections` and the header; durable when this returns. As `write_container`."""
        rest = {name: _buffer(content) for name, content in sections.items() if name not in self._buffers}
        buffers = self._buffers | rest
        checksums = self._hashed.result() | _checksums(rest)
        prefix = _prefix(header, buffers, checksums, self._room)
        self._written.result()
        if len(prefix) > _PREFIX.size + self._room:
            self._file.discard()
            return write_container(self._path, header, buffers)
        for buffer in rest.values():
            self._file.write(buffer)
        self._file.write(hashlib.sha256(prefix).digest())
        self._file.write(prefix, at=0)
        self._file.complete()
        return len(prefix) + sum(len(buffer) for buffer in buffers.values()) + _CHECKSUM_BYTES

    def _write(self) -> None:
        self._file.write(b"", at=_PREFIX.size + self._room)
        for buffer in self._buffers.values():
            self._file.write(buffer)
        self._file.sync()


class Container:
    """A written file, open for reading; sections are read when asked for, and checked every time.

    Use it as a context manager. Thread-safe.
    """

    def __init__(self, path: Path) -> None:
        """Open and check the header. Raises FileNotFoundError, and DamagedError where the file is not whole."""
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115 (closed by __exit__)
        try:
            self.header = self._read_header()
            self._sections = self._place_sections()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def section(self, name: str) -> bytes:
        """The bytes of a section. Raises DamagedError."""
        return bytes(self._checked(name))

    def array(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A section as a one-dimensional array, its own copy. Raises DamagedError."""
        content = self._checked(name)
        if len(content) % np.dtype(dtype).itemsize:
            raise self._damaged(f"section {name}", f"{len(content)} bytes, no multiple of {np.dtype(dtype).itemsize}")
        return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)

    @contextmanager
    def making_sense(self) -> Iterator[None]:
        """Turn what a header says that no writer of ours would, whatever its checksum, into DamagedError."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as failure:
            raise self._damaged("header", f"{failure!r} in it") from failure

    def _checked(self, name: str) -> bytearray:
        if name not in self._sections:
            raise DamagedError(
                f"{self.path} has no section {name}. hint: another release wrote it, or restore the file"
            )
        offset, length, wanted = self._sections[name]
        content = self._pread(offset, length, f"section {name}")
        got = hashlib.sha256(content).hexdigest()
        if got != wanted:
            raise self._damaged(f"section {name}", f"checksum {got[:12]}, wanted {wanted[:12]}")
        return content

    def _read_header(self) -> dict[str, Any]:
        prefix = self._pread(0, _PREFIX.size, "prefix")
        magic, form, length = _PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise self._damaged("magic", f"{magic!r}, wanted {MAGIC!r}")
        if form != FORMAT:
            raise VersionError(
                f"{self.path} has format {form}, this release reads {FORMAT}. hint: use the release that wrote it"
            )
        size = os.fstat(self._file.fileno()).st_size
        if size < _PREFIX.size + length + _CHECKSUM_BYTES:
            raise self._damaged("header", f"{length} bytes by its length, the file {size}")
        header = self._pread(_PREFIX.size, length, "header")
        wanted = self._pread(size - _CHECKSUM_BYTES, _CHECKSUM_BYTES, "checksum")
        got = hashlib.sha256(prefix + header).digest()
        if got != wanted:
            raise self._damaged("header", f"checksum {got.hex()[:12]}, wanted {wanted.hex()[:12]}")
        self._begin, self._size = _PREFIX.size + length, size
        with self.making_sense():
            return dict(json.loads(header))

    def _place_sections(self) -> dict[str, tuple[int, int, str]]:
        """By name: offset in the file, length, checksum. A length is not believed beyond the file's own."""
        places, offset = {}, self._begin
        with self.making_sense():
            for entry in self.header["sections"]:
                length = min(operator.index(entry["length"]), self._size)
                places[str(entry["name"])] = (offset, max(length, 0), str(entry["sha256"]))
                offset += max(length, 0)
        if self._size != offset + _CHECKSUM_BYTES:
            raise self._damaged("length", f"{self._size} bytes, wanted {offset + _CHECKSUM_BYTES}")
        return places

    def _pread(self, offset: int, length: int, part: str) -> bytearray:
        content = bytearray(length)
        read = 0
        while read < length:  # one call reads at most 2 GB
            more = os.preadv(self._file.fileno(), [memoryview(content)[read:]], offset + read)
            if not more:
                raise self._damaged(part, f"{read} bytes, wanted {length}")
            read += more
        return content

    def _damaged(self, part: str, problem: str) -> DamagedError:
        return DamagedError(
            f"{self.path} is damaged: {part} has {problem}. "
            "hint: restore the file from a backup, or go back to a version before it: springtide versions"
        )


def _buffer(content: Section) -> memoryview:
    if isinstance(content, bytes | memoryview):
        return memoryview(content)
    little = np.ascontiguousarray(content, dtype=content.dtype.newbyteorder("<"))
    return memoryview(little.reshape(-1).view(np.uint8).data)


def _checksums(buffers: Mapping[str, memoryview]) -> dict[str, str]:
    return run_per_field(lambda name: hashlib.sha256(buffers[name]).hexdigest(), buffers)


def _prefix(
    header: Mapping[str, Any], buffers: Mapping[str, memoryview], checksums: Mapping[str, str], room: int = 0
) -> bytes:
    """Everything before the sections; spaces fill what the header leaves of its room."""
    listed = [{"name": name, "length": len(buffers[name]), "sha256": checksums[name]} for name in buffers]
    encoded = json.dumps(
        {**header, "sections": listed}, sort_keys=True, allow_nan=False, separators=(",", ":")
    ).encode()
    encoded = encoded.ljust(room)
    return _PREFIX.pack(MAGIC, FORMAT, len(encoded)) + encoded
