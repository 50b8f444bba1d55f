"""Merged files: what consecutive versions changed, merged into one file in memory that does not grow with it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from pipeline.arrays.types import UInt8s
from pipeline.files.interface import StoredFolder
from pipeline.formats.container import Container, StreamedFile
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.runs.key_filter import KeyFilter
from pipeline.versions.runs.sorted_run import run_keys
from pipeline.versions.runs.stored_run import filter_of, index_of, merged_pieces
from pipeline.versions.store.files import MERGED, VERSION, read_state, runs_of, state_sections
from pipeline.versions.store.listed_files import require_listed
from pipeline.versions.store.training_state import merge_training_state


@contextmanager
def opened(folder: StoredFolder, files: Sequence[ChangeFile]) -> Iterator[list[Container]]:
    """The files of changes `files`, open. Raises FileNotFoundError, DamagedError if one is not the listed one."""
    with ExitStack() as stack:
        containers = [stack.enter_context(Container.open(folder / file.path, VERSION, MERGED)) for file in files]
        for file, container in zip(files, containers, strict=True):
            require_listed(container, f"version {file.upto}", file.file.digest)
        yield containers


def write_merged(folder: StoredFolder, path: str, files: Sequence[ChangeFile]) -> ChangeFile:
    """Merge consecutive files of changes into a new one. Raises VersionError, DamagedError; leaves no file then."""
    after = files[0].after
    with opened(folder, files) as containers, StreamedFile(folder / path, MERGED) as merged:
        state = merge_training_state([read_state(container) for container in containers])
        for name, content in state_sections(state).items():
            merged.write(name, [content])
        fields = containers[-1].header["fields"]
        for field in sorted(fields):
            for part in ("rows", "served"):
                name, filtered = f"fields/{field}/{part}", part == "rows"
                _write_run(merged, containers, name, keep_removed=after is not None, filtered=filtered)
        written = merged.finish(
            {
                "after": str(after) if after else None,
                "id": str(files[-1].upto),
                "fields": fields,
                "filters": sorted(state.complete),
                "filter_changes": sorted(state.changes),
            }
        )
    return ChangeFile(after, files[-1].upto, path, written)


def _write_run(
    merged: StreamedFile, files: Sequence[Container], name: str, *, keep_removed: bool, filtered: bool
) -> None:
    index: list[UInt8s] = []
    runs = runs_of(files, name)
    filter = KeyFilter.of_size(sum(int(run.blocks["entries"].sum(dtype=np.int64)) for run in runs))

    def pieces() -> Iterator[UInt8s]:
        for piece in merged_pieces(runs, keep_removed):
            index.append(np.ascontiguousarray(piece.blocks).view(np.uint8))
            if filtered:
                filter.add(run_keys(piece))
            yield piece.bytes

    merged.write(name, pieces())
    merged.write(index_of(name), index)
    if filtered:
        merged.write(filter_of(name), [filter.bytes])
