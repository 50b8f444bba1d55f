"""Checks a write-ahead log that SQLite left beside a file when its process was killed.

SQLite verifies the checksum of each frame and takes the first wrong one for the end of the log: a damaged bit would
drop the transactions behind it without an error. Here the frames behind it are read too. A transaction is durable
before the next one begins, so frames behind a later commit prove damage; a single incomplete transaction may be an
interrupted write, and is a warning. The form of the file: https://www.sqlite.org/fileformat2.html#the_write_ahead_log

    header  32 bytes: magic, version, page size, number, salt 1, salt 2, checksum 1, checksum 2
    frames  24 bytes: page, size of the file after a commit or 0, salt 1, salt 2, checksum 1, checksum 2; then the page
"""

import os
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import structlog

from pipeline.errors import DamagedError

logger = structlog.get_logger(__name__)

_UInt32s = npt.NDArray[np.uint32]
_Float64s = npt.NDArray[np.float64]
_LOCKS = Path("/proc/locks")
_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = 0x377F0682
"""Its lowest bit set: checksums are of big-endian words."""
_FRAMES_AT_ONCE = 256
_SCANS = 10
"""Scans of a log that other processes write to meanwhile, until two agree."""


class _State(Enum):
    COMPLETE = auto()
    INCOMPLETE = auto()
    """Its last transaction does not match its checksums."""
    DAMAGED = auto()
    """A transaction that was durable does not match its checksums."""


class _Scan(NamedTuple):
    state: _State
    frame: int


def check_wal(database: Path, fix: str) -> None:
    """Check the write-ahead log of a file before SQLite reads it; a warning if its last transaction is incomplete.

    Call it before the file is opened: SQLite removes the log when it is closed. A log in use was checked when its first
    user opened it. Does not open the file or its index, whose locks would be lost.

    Raises DamagedError if durable transactions are damaged.
    """
    wal = Path(f"{database}-wal")
    if _in_use(Path(f"{database}-shm")):
        return
    scan = _scan_until_stable(wal)
    if scan.state is _State.DAMAGED:
        raise DamagedError(
            f"{wal} is damaged: frame {scan.frame} does not match its checksum, and later transactions follow it. "
            f"hint: {fix}"
        )
    if scan.state is _State.INCOMPLETE:
        logger.warning(
            "the last transaction of a write-ahead log is incomplete and is not used: a write was interrupted, or the "
            "file is damaged",
            file=str(wal),
            frame=scan.frame,
        )


def _in_use(index: Path) -> bool:
    """Whether a connection holds a lock on the index of the log; false where the system does not list locks."""
    try:
        found, locks = index.stat(), _LOCKS.read_text(encoding="ascii")
    except OSError:
        return False
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(place in line.split() for line in locks.splitlines())


def _scan_until_stable(wal: Path) -> _Scan:
    """Scan until a problem is found twice in an unchanged file: another process may have been writing."""
    before = None
    for _ in range(_SCANS):
        try:
            found = wal.stat()
            scan = (_scan(wal), found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            return _Scan(_State.COMPLETE, 0)
        if scan[0].state is _State.COMPLETE or scan == before:
            return scan[0]
        before = scan
    return _Scan(_State.COMPLETE, 0)


def _scan(wal: Path) -> _Scan:
    content = wal.read_bytes()
    if len(content) < _HEADER + _FRAME_HEADER:
        return _Scan(_State.COMPLETE, 0)
    magic, _, page_size, _, salt_1, salt_2, *stored = np.frombuffer(content, ">u4", 8).tolist()
    header = np.frombuffer(content, ">u4" if magic & 1 else "<u4", 6).astype(np.uint32)
    if magic & ~1 != _MAGIC or _checksum(np.zeros(2, np.uint32), header).tolist() != stored:
        return _Scan(_State.DAMAGED, 0)
    frame = np.dtype([("header", ">u4", 6), ("page", ">u4" if magic & 1 else "<u4", page_size // 4)])
    count = (len(content) - _HEADER) // frame.itemsize
    frames = np.frombuffer(content, frame, count, _HEADER)
    first_invalid = _first_invalid(frames, np.array(stored, np.uint32), (salt_1, salt_2), magic)
    return _judge(frames["header"][first_invalid:], (salt_1, salt_2), first_invalid)


def _first_invalid(frames: npt.NDArray[np.void], checksum: _UInt32s, salts: tuple[int, int], magic: int) -> int:
    """Index of the first frame that SQLite does not use; their number if it uses all."""
    order = ">u4" if magic & 1 else "<u4"
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        part = frames[start : start + _FRAMES_AT_ONCE]
        headers = np.ascontiguousarray(part["header"])
        begun = headers.view(np.uint8).reshape(len(part), -1)[:, :8].copy().view(order)
        words = np.hstack([begun, part["page"]]).astype(np.uint32)
        own = _own_parts(words)
        for i in range(len(part)):
            checksum = _carried(checksum, words.shape[1] // 2) + own[i]
            if tuple(headers[i, 2:4].tolist()) != salts or headers[i, 4:].tolist() != checksum.tolist():
                return start + i
    return len(frames)


def _judge(headers: npt.NDArray[np.uint32], salts: tuple[int, int], first_invalid: int) -> _Scan:
    """What the frames from the first invalid one on show. Frames of an earlier log have other salts, both of them."""
    if not len(headers):
        return _Scan(_State.COMPLETE, 0)
    same = headers[:, 2:4] == np.array(salts, np.uint32)
    ours = np.flatnonzero(same.any(axis=1))
    if not len(ours):
        return _Scan(_State.COMPLETE, 0)
    commits = ours[headers[ours, 1] != 0]
    later = len(commits) > 0 and ours[-1] > commits[0]
    return _Scan(_State.DAMAGED if later else _State.INCOMPLETE, first_invalid)


def _checksum(before: _UInt32s, words: _UInt32s) -> _UInt32s:
    """SQLite's checksum of [n] words that follow others with checksum `before`: [2] uint32."""
    found: _UInt32s = _carried(before, len(words) // 2) + _own_parts(words[None, :])[0]
    return found


def _own_parts(words: _UInt32s) -> _UInt32s:
    """What each row of [n, words] adds to the checksum before it: [n, 2] uint32, modulo 2^32.

    For each pair (x, y) of words: s1 += x + s2; s2 += y + s1. So (s1, s2) becomes M (s1, s2) + (x, x + y) with
    M = [[1, 1], [1, 2]], and the sum over all pairs has powers of M as weights. It is computed from halves of 16 bits,
    whose products and sums are exact in float64: that is a product of matrices.
    """
    low, high = _halves(words)
    weights_low, weights_high = _weights(words.shape[1])
    mixed = (low @ weights_high + high @ weights_low).astype(np.uint64)
    parts: _UInt32s = ((low @ weights_low).astype(np.uint64) + (mixed << np.uint64(16))).astype(np.uint32)
    return parts


def _halves(words: _UInt32s) -> tuple[_Float64s, _Float64s]:
    return (words & 0xFFFF).astype(np.float64), (words >> 16).astype(np.float64)


def _carried(before: _UInt32s, pairs: int) -> _UInt32s:
    power = _powers(pairs)[pairs].astype(np.uint64)
    carried: _UInt32s = (power @ before.astype(np.uint64) & 0xFFFFFFFF).astype(np.uint32)
    return carried


@cache
def _weights(words: int) -> tuple[_Float64s, _Float64s]:
    """The halves of each word's weight in the two sums: [words, 2]. An x counts for both parts of (x, x + y)."""
    powers = _powers(words // 2 - 1)[::-1]
    weights = np.empty((words, 2), np.uint32)
    weights[0::2], weights[1::2] = powers[:, :, 0] + powers[:, :, 1], powers[:, :, 1]
    return _halves(weights)


@cache
def _powers(highest: int) -> _UInt32s:
    """M^0 to M^highest, modulo 2^32: [highest + 1, 2, 2]."""
    powers = np.empty((highest + 1, 2, 2), np.uint32)
    a, b, d = 1, 0, 1
    for k in range(highest + 1):
        powers[k] = (a, b), (b, d)
        a, b, d = (a + b) & 0xFFFFFFFF, (b + d) & 0xFFFFFFFF, (b + 2 * d) & 0xFFFFFFFF
    return powers
