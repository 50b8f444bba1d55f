"""Decompresses the records of a batch within a bound: any producer may compress gigabytes into a few kilobytes.

gzip, lz4 and zstd decompress in steps here. Snappy, whose output is at most about 22 times its input, is left to
kafka-python.
"""

import gzip
import io
from collections.abc import Callable, Iterator
from typing import Any

from kafka import codec
from lz4.frame import LZ4FrameDecompressor
from zstandard import ZstdDecompressor

from pipeline.errors import DamagedError

MAX_BYTES = 1 << 30
"""Of the records of one batch; the largest batch has 32 MiB by default (`logs.max_record_bytes`)."""
_STEP_BYTES = 8 << 20


def decompress(kind: int, body: bytes, max_bytes: int = MAX_BYTES) -> bytes:
    """The records of a batch.

    Args:
        kind: the codec of the batch, 1 to 4.
        body: its compressed records.
        max_bytes: bound of the result.

    Raises:
        DamagedError: for bytes that are invalid or exceed the bound, and for a codec whose library is missing.
    """
    if kind not in _CODECS:
        raise DamagedError(f"a batch is compressed with codec {kind}, supported are 1 to {max(_CODECS)}")
    name, steps = _CODECS[kind]
    if name == "snappy" and not codec.has_snappy():
        raise DamagedError(f"a batch is compressed with {name}, whose library is missing. hint: pip install it")
    whole = bytearray()
    try:
        for step in steps(body):
            whole += step
            if len(whole) > max_bytes:
                break
    except Exception as failure:  # each codec raises other exceptions for invalid bytes
        raise DamagedError(f"a batch is not valid {name}: {failure or type(failure).__name__}") from failure
    if len(whole) > max_bytes:
        raise DamagedError(f"a batch of {len(body)} bytes has more than {max_bytes} bytes of records as {name}")
    return bytes(whole)


def _gzip(body: bytes) -> Iterator[bytes]:
    yield from _read(gzip.GzipFile(fileobj=io.BytesIO(body)))


def _snappy(body: bytes) -> Iterator[bytes]:
    yield codec.snappy_decode(body)


def _lz4(body: bytes) -> Iterator[bytes]:
    stream = LZ4FrameDecompressor()
    step = stream.decompress(body, _STEP_BYTES)
    while not stream.eof:
        yield step
        step = stream.decompress(b"", _STEP_BYTES)
        if not step and not stream.eof:
            raise EOFError("it is cut off")
    yield step


def _zstd(body: bytes) -> Iterator[bytes]:
    yield from _read(ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True))


def _read(stream: Any) -> Iterator[bytes]:
    while step := stream.read(_STEP_BYTES):
        yield step


_CODECS: dict[int, tuple[str, Callable[[bytes], Iterator[bytes]]]] = {
    1: ("gzip", _gzip),
    2: ("snappy", _snappy),
    3: ("lz4", _lz4),
    4: ("zstd", _zstd),
}
