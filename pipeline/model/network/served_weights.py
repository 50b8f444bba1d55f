"""Dense weights as serving holds them, and changes between two versions of them.

A trained float32 variable is integers times powers of two, in blocks of 64 weights with one power each
(`native/quantizer/integers.h`); other arrays are as trained. Blocks are numbered through the arrays of the complete
network. A change carries the blocks whose integers differ, coded as the rows of a table are (`coded_rows`): a block
that keeps its power as the difference of integers. Applied to what it was made from, it gives the same bytes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.arrays.types import Bools, Int64s, UInt8s, UInt32s
from pipeline.errors import DamagedError, DeltaError
from pipeline.model.network.weights import (
    BLOCK,
    INTEGER_BITS,
    Contents,
    Entry,
    blocks_of,
    read_contents,
    write_contents,
)
from pipeline.versions.deltas.coded_rows import ChangedRows, announced_rows, code_rows, decode_coded_rows
from pipeline.versions.deltas.delta import UNCHANGED, DenseChange, short_digest
from pipeline.versions.deltas.quantizer import payload_offsets

_NO_KEYS, _NO_HANDLES = np.empty(0, np.uint64), np.empty(0, np.uint32)


@dataclass(frozen=True)
class ServedWeights:
    """The dense weights that serving holds, of the complete network or of a part of it.

    Attributes:
        contents: entries and bytes of all arrays.
    """

    contents: Contents

    @classmethod
    def of(cls, packed: bytes) -> "ServedWeights":
        """Those of `packed`. Raises DamagedError."""
        return cls(read_contents(packed))

    @property
    def complete(self) -> bool:
        """Whether these are the weights of the complete network."""
        return self.contents.entries == self.contents.whole

    def packed(self) -> bytes:
        """The bytes that the served digest covers; equal weights have equal bytes."""
        return self._packed

    @cached_property
    def _packed(self) -> bytes:
        return write_contents(self.contents)

    def blocks(self, name: str) -> UInt8s | None:
        """[blocks, bytes of one] uint8, the payloads of an array in blocks; None if there is none of this name."""
        for entry, part in _pairs(self.contents):
            if entry.name == name and entry.bits is not None:
                return blocks_of(entry, part)
        return None

    def cut_to(self, names: Collection[str]) -> "ServedWeights":
        """These arrays only, which remember their place in the complete network."""
        kept = [(entry, part) for entry, part in _pairs(self.contents) if entry.name in names]
        in_blocks = any(entry.bits is not None for entry in self.contents.whole)
        entries, parts = tuple(entry for entry, _ in kept), tuple(part for _, part in kept)
        return ServedWeights(Contents(entries, parts, self.contents.whole if in_blocks else entries))

    def change_to(self, after: "ServedWeights") -> DenseChange | None:
        """What turns these weights into `after`; None if one of them has other arrays, or integers of other bits.

        Both are complete.
        """
        if self.contents.entries != after.contents.entries:
            return None
        exact = [part for entry, part in _pairs(after.contents) if entry.bits is None]
        unchanged = exact == [part for entry, part in _pairs(self.contents) if entry.bits is None]
        if self.contents.parts == after.contents.parts:
            return UNCHANGED
        return DenseChange(
            digest=short_digest(after.packed()),
            arrays=None if unchanged else b"".join(exact),
            blocks=_coded(self.contents, after.contents),
        )

    def changed(self, change: DenseChange) -> "ServedWeights":
        """These weights after a change. Raises DeltaError if it was not made from them."""
        announced = announced_rows(change.blocks)
        count, blocks = int(announced.by_precision.sum()), sum(entry.blocks for entry in self.contents.whole)
        if count > blocks:
            raise DeltaError(f"the change of dense weights announces {count} blocks, the network has {blocks}")
        if announced.removed or announced.by_precision[:, -1].any():
            raise DeltaError("the change of dense weights has keys. hint: the delta is damaged")
        try:
            rows = decode_coded_rows(change.blocks, BLOCK)
        except DamagedError as failure:
            raise DeltaError(f"the change of dense weights cannot be read: {failure}") from None
        changed = _changed_parts(self.contents, change.arrays, rows)
        return ServedWeights(self.contents._replace(parts=changed))


def dense_after(served: bytes, dense: bytes | DenseChange, whole_digest: bytes) -> tuple[bytes, bytes]:
    """The dense weights after a delta that changes some, and the digest of those of the complete network.

    Args:
        served: those that serving holds, of the complete network or of a part.
        dense: what the delta carries.
        whole_digest: as the delta names it; only a part depends on it.

    Raises:
        DeltaError: a change that was not made from `served`.
        DamagedError: `served` is no dense weights.
    """
    if isinstance(dense, bytes):
        return dense, whole_digest
    if not served:
        raise DeltaError("the delta changes dense weights, none are served. run: springtide publish --level full")
    before = ServedWeights.of(served)
    after = before.changed(dense)
    packed = after.packed()
    return packed, short_digest(packed) if before.complete else whole_digest


def _pairs(contents: Contents) -> Iterator[tuple[Entry, bytes]]:
    return zip(contents.entries, contents.parts, strict=True)


def _coded(before: Contents, after: Contents) -> bytes:
    """The blocks that differ between two contents with the same entries, as a stream."""
    handles: list[UInt32s] = [_NO_HANDLES]
    relative: list[Bools] = [np.empty(0, np.bool_)]
    bits, payloads, first = [np.empty(0, np.uint8)], [np.empty(0, np.uint8)], 0
    for entry, old, new in zip(after.entries, before.parts, after.parts, strict=True):
        if entry.bits is None:
            continue
        served, wanted = blocks_of(entry, old), blocks_of(entry, new)
        numbers = np.flatnonzero((served != wanted).any(axis=1))
        same = served[numbers, 0] == wanted[numbers, 0]
        payload = wanted[numbers]
        payload[same, 1:] = _sum(payload[same, 1:], served[numbers[same], 1:], entry.bits, -1)
        payload[same, 0] = 0
        handles.append((first + numbers).astype(np.uint32))
        relative.append(same)
        bits.append(np.full(len(numbers), entry.bits, np.uint8))
        payloads.append(payload.reshape(-1))
        first += entry.blocks
    known = np.concatenate(handles)
    rows = ChangedRows(
        known, np.concatenate(relative), _NO_KEYS, _NO_HANDLES, np.concatenate(bits), np.concatenate(payloads), _NO_KEYS
    )
    return code_rows(rows, BLOCK)


def _sum(one: UInt8s, other: UInt8s, bits: int, sign: int) -> UInt8s:
    """The sum one + sign × other of integers of `bits`, modulo 2^bits: [n, bytes] uint8 each."""
    kind = f"<u{bits // 8}"
    left, right = np.ascontiguousarray(one).view(kind), np.ascontiguousarray(other).view(kind)
    total: UInt8s = (left + right if sign > 0 else left - right).view(np.uint8)
    return total


def _changed_parts(contents: Contents, arrays: bytes | None, rows: ChangedRows) -> tuple[bytes, ...]:
    """The bytes of every array after a change. Raises DeltaError if it does not fit the complete network."""
    own = dict(zip((entry.name for entry in contents.entries), contents.parts, strict=True))
    by_bits = {bits: _of_bits(rows, bits) for bits in INTEGER_BITS}
    first, start, found = 0, 0, 0
    for entry in contents.whole:
        if entry.bits is None:
            stop = start + entry.bytes
            if arrays is not None and entry.name in own:
                own[entry.name] = arrays[start:stop]
            start = stop
            continue
        changed = by_bits[entry.bits].within(first, first + entry.blocks)
        found += len(changed.numbers)
        if entry.name in own and len(changed.numbers):
            own[entry.name] = changed.applied_to(blocks_of(entry, own[entry.name]), entry.bits).tobytes()
        first += entry.blocks
    if found < len(rows.handles) or (arrays is not None and start != len(arrays)):
        raise DeltaError(
            f"the change of dense weights has {len(rows.handles)} blocks, {found} of which the network has, and "
            f"{0 if arrays is None else len(arrays)} bytes of arrays, wanted {start}. "
            "hint: it belongs to another network"
        )
    return tuple(own[entry.name] for entry in contents.entries)


@dataclass(frozen=True)
class _Blocks:
    """Changed blocks with integers of one number of bits: numbers [n], whether each is a difference, payloads."""

    numbers: Int64s
    relative: Bools
    payloads: UInt8s

    def within(self, first: int, stop: int) -> "_Blocks":
        """Those numbered from `first` to `stop`, numbered from 0."""
        chosen = (self.numbers >= first) & (self.numbers < stop)
        return _Blocks(self.numbers[chosen] - first, self.relative[chosen], self.payloads[chosen])

    def applied_to(self, served: UInt8s, bits: int) -> UInt8s:
        """The blocks of one array after this change."""
        after, payloads = served.copy(), self.payloads.copy()
        bases = self.numbers[self.relative]
        payloads[self.relative, 1:] = _sum(payloads[self.relative, 1:], served[bases, 1:], bits, 1)
        payloads[self.relative, 0] = served[bases, 0]
        after[self.numbers] = payloads
        return after


def _of_bits(rows: ChangedRows, bits: int) -> _Blocks:
    """The rows of one precision, which stand one after another."""
    chosen = np.flatnonzero(rows.bits == bits)
    offsets = payload_offsets(rows.bits, BLOCK)
    start, stop = (offsets[chosen[0]], offsets[chosen[-1] + 1]) if len(chosen) else (0, 0)
    size = 1 + BLOCK * bits // 8
    payloads = rows.payload[start:stop].reshape(len(chosen), size)
    return _Blocks(rows.handles[chosen].astype(np.int64), rows.relative[chosen], payloads)
