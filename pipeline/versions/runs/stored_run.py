"""A run in a file: two sections, its blocks and their index. Any range of its keys is read and verified by itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import UInt64s
from pipeline.errors import InputError
from pipeline.formats.container import Container, Section
from pipeline.versions.runs.key_filter import KeyFilter
from pipeline.versions.runs.sorted_run import (
    BLOCK,
    LAST_KEY,
    Blocks,
    RunArrays,
    SortedRun,
    decode_run,
    merge_runs,
)

RANGE_BYTES = 32 << 20
"""Runs are merged by ranges of keys of about so many bytes: that bounds memory, whatever the size of the runs."""


def run_sections(name: str, run: SortedRun) -> dict[str, Section]:
    """The sections of a run called `name`."""
    return {name: run.bytes, index_of(name): run.blocks.view(np.uint8)}


def filter_section(name: str, keys: Sequence[UInt64s]) -> dict[str, Section]:
    """The section of the filter of a run called `name`, with entries for `keys`."""
    filter = KeyFilter.of_size(sum(len(part) for part in keys))
    for part in keys:
        filter.add(part)
    return {filter_of(name): filter.bytes}


@dataclass(frozen=True)
class StoredRun:
    """A run of an open file."""

    file: Container
    name: str
    blocks: Blocks

    @classmethod
    def open(cls, file: Container, name: str) -> "StoredRun":
        """The run called `name`. Raises DamagedError."""
        blocks = file.array(index_of(name), np.uint8)
        if len(blocks) % BLOCK.itemsize:
            raise file.damaged(f"index of {name} has {len(blocks)} bytes, no multiple of {BLOCK.itemsize}")
        return cls(file, name, blocks.view(BLOCK))

    def read(self, first: int = 0, last: int = LAST_KEY) -> SortedRun:
        """The blocks that may hold keys from `first` to `last`. Raises DamagedError."""
        keys = self.blocks["first_key"]
        start = max(int(np.searchsorted(keys, np.uint64(first), "right")) - 1, 0)
        blocks = self.blocks[start : int(np.searchsorted(keys, np.uint64(last), "right"))]
        if not len(blocks):
            return SortedRun.empty()
        offset = int(blocks["offset"][0])
        return SortedRun(self.file.part(self.name, offset, int(blocks["bytes"].sum(dtype=np.int64))), blocks)

    def holding(self, keys: UInt64s) -> SortedRun:
        """The blocks that may hold `keys` [k] uint64. Raises DamagedError."""
        places = np.searchsorted(self.blocks["first_key"], keys, "right") - 1
        chosen = self.blocks[np.unique(places[places >= 0])]
        parts = [self.file.part(self.name, int(block["offset"]), int(block["bytes"])) for block in chosen]
        return SortedRun(np.concatenate([np.empty(0, np.uint8), *parts]), chosen)

    @contextmanager
    def parsing(self) -> Iterator[None]:
        """Inside, an InputError about blocks or values becomes a DamagedError that names the file."""
        try:
            yield
        except InputError as failure:
            raise self.file.damaged(f"{self.name}: {failure}") from None


def merged_pieces(runs: Sequence[StoredRun], keep_removed: bool) -> Iterator[SortedRun]:
    """The merge of `runs`, oldest first, in consecutive pieces of about `RANGE_BYTES`. Raises DamagedError."""
    offset = 0
    for first, last in ranges_of(runs):
        parts = [run.read(first, last) for run in runs]
        with damage_named(runs, parts):
            merged = merge_runs(parts, keep_removed, first=first, last=last, offset=offset)
        offset += len(merged.bytes)
        yield merged


@contextmanager
def damage_named(runs: Sequence[StoredRun], parts: Sequence[SortedRun]) -> Iterator[None]:
    """Inside, an InputError about damaged blocks of `parts` becomes a DamagedError that names the file of the run."""
    try:
        yield
    except InputError:
        for run, part in zip(runs, parts, strict=True):
            with run.parsing():
                merge_runs([part], keep_removed=True)
        raise


def merged_arrays(
    runs: Sequence[StoredRun], widths: Sequence[int], with_rest: bool = False, keys: UInt64s | None = None
) -> RunArrays:
    """The merge of `runs`, oldest first, as arrays; see `decode_run`.

    With `keys` [k] uint64 only blocks that may hold them are read: the entries of these keys are right, those of other
    keys in the same blocks may be outdated. Raises DamagedError.
    """
    try:
        if keys is not None:
            return decode_run(merge_runs([run.holding(keys) for run in runs], keep_removed=True), widths, with_rest)
        if len(runs) == 1:
            return decode_run(runs[0].read(), widths, with_rest)
        return _joined([decode_run(piece, widths, with_rest) for piece in merged_pieces(runs, keep_removed=True)])
    except InputError:
        for run in runs:
            with run.parsing():
                decode_run(run.read(), widths, with_rest)
        raise


def _joined(parts: Sequence[RunArrays]) -> RunArrays:
    return RunArrays(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.removed for part in parts]),
        tuple(np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True)),
        np.concatenate([part.rest for part in parts]),
        np.concatenate([part.rest_bytes for part in parts]),
    )


def ranges_of(runs: Sequence[StoredRun]) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of keys, (first, last), over which the runs together have about `RANGE_BYTES`."""
    blocks = np.concatenate([np.empty(0, BLOCK), *(run.blocks for run in runs)])
    order = np.argsort(blocks["first_key"], kind="stable")
    keys: UInt64s = blocks["first_key"][order]
    number = np.cumsum(blocks["bytes"][order], dtype=np.int64) // RANGE_BYTES
    starts = [int(key) for key in np.unique(keys[np.flatnonzero(np.diff(number)) + 1])]
    first = 0
    for start in starts:
        if start > first:
            yield first, start - 1
            first = start
    yield first, LAST_KEY


def filter_of(name: str) -> str:
    """The section of the filter of the run called `name`."""
    return f"{name}/filter"


def index_of(name: str) -> str:
    """The section of the index of the run called `name`."""
    return f"{name}/index"
