"""Version files: a commit encoded as a container. The header is the manifest (`schemas/manifest.json`).

Sections: `dense`, `delta`, `served_dense` unless it is empty, `filters/NAME`, `filter_changes/NAME`, and for each table
the runs `fields/NAME/rows` and `fields/NAME/served`, each with its index, the rows also with a filter of keys. The runs
of a full commit hold every row; it also has `fields/NAME/touched`, the served keys that it changed. A file of kind
`TOUCHED` holds only the keys that dropped versions touched, as `fields/NAME/touched`; one of kind `MERGED` the runs and
the training state that consecutive versions changed (`store/merged_file.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.arrays.per_field import run_per_field
from pipeline.arrays.types import UInt64s
from pipeline.errors import InputError
from pipeline.files.interface import StoredFile
from pipeline.formats.container import Container, Draft, Kind, Section, WrittenFile, write_container
from pipeline.versions.deltas.delta import Delta, complete_delta
from pipeline.versions.quality import Quality
from pipeline.versions.runs.sorted_run import decode_run
from pipeline.versions.runs.stored_run import (
    StoredRun,
    filter_section,
    merged_arrays,
    merged_pieces,
    run_sections,
)
from pipeline.versions.runs.table_runs import (
    SERVED_WIDTHS,
    decode_rows,
    decode_served,
    encode_rows,
    encode_served,
)
from pipeline.versions.state import (
    Commit,
    EntriesChange,
    FieldChange,
    ServedEntries,
    TableChange,
    VersionId,
    union_keys,
)
from pipeline.versions.store.training_state import StateChange

FIX = "restore the file from a backup, or roll back to a version before it: springtide versions"
VERSION, TOUCHED, MERGED = Kind(b"vers", FIX, format=7), Kind(b"keys", FIX), Kind(b"merg", FIX, format=4)
"""Format 7 of versions, 4 of merged files: the runs of rows have filters."""
_NO_KEYS = np.empty(0, np.uint64)
_HEADER_NAMES = (
    "epoch", "offset", "row", "log_id", "first_at_ms", "last_at_ms", "model_digest", "digest", "served_digest", "full",
    "samples_seen",
)  # fmt: skip


def write_commit(stored: StoredFile, commit: Commit) -> WrittenFile:
    """Write a version's file. Raises VersionError, and then leaves no file."""
    sections = _sections(commit) | _row_sections(tables_of(commit))
    return write_container(stored, VERSION, version_manifest(commit), sections)


def draft_commit(stored: StoredFile, tables: Mapping[str, TableChange]) -> Draft:
    """Begin a version's file with its rows; `finish_commit` completes it. Raises VersionError."""
    encoded = (_run_of_rows(name, tables[name]) for name in sorted(tables))
    return Draft(stored, VERSION, (section for sections in encoded for section in sections.items()))


def finish_commit(draft: Draft, commit: Commit) -> WrittenFile:
    """Complete a draft that holds the commit's rows. Returns and raises as `write_commit`."""
    return draft.finish(version_manifest(commit), _sections(commit))


def tables_of(commit: Commit) -> dict[str, TableChange]:
    """By table, the rows of a commit."""
    return {name: TableChange(c.keys, c.rows, c.removed) for name, c in commit.fields.items()}


def version_manifest(commit: Commit) -> dict[str, Any]:
    """The header of the commit's file."""
    return {
        "id": str(commit.id),
        "parent": str(commit.parent) if commit.parent else None,
        **{name: getattr(commit, name) for name in _HEADER_NAMES},
        "filters": sorted(commit.training_state),
        "filter_changes": sorted(commit.training_state_changes),
        "validation": dict(commit.validation),
        "quarantines_seen": list(commit.quarantines_seen),
        "next_handles": dict(commit.next_handles),
        "price": dict(commit.price),
        "quality": asdict(commit.quality),
        "delta_bytes": len(commit.delta),
        "fields": {name: {"dim": c.dim, "row_bytes": c.rows.shape[1]} for name, c in commit.fields.items()},
    }


def read_version_manifest(stored: StoredFile) -> dict[str, Any]:
    """The header of a version's file. Raises FileNotFoundError, DamagedError."""
    with Container.open(stored, VERSION) as file:
        return file.header


def read_quality(stored: StoredFile) -> Quality:
    """The quality of what serving holds at a version. Raises FileNotFoundError, DamagedError."""
    with Container.open(stored, VERSION) as file, file.parsing():
        return Quality(**file.header["quality"])


def read_commit(stored: StoredFile) -> Commit:
    """Read a version's file: what the version changed. Raises FileNotFoundError, DamagedError."""
    with Container.open(stored, VERSION) as file, file.parsing():
        return commit_of(file, read_tables([file]))


def read_outline(stored: StoredFile) -> Commit:
    """Read a version's file without rows and served entries: fields are empty. Raises as `read_commit`."""
    with Container.open(stored, VERSION) as file, file.parsing():
        shapes = file.header["fields"].items()
        return commit_of(file, {name: FieldChange.empty(s["dim"], s["row_bytes"]) for name, s in shapes})


def check_file(stored: StoredFile) -> None:
    """Verify all checksums of a version's file. Raises FileNotFoundError, DamagedError."""
    with Container.open(stored, VERSION) as file:
        check_sections(file)


def check_sections(file: Container) -> None:
    """Verify all checksums of an open file. Raises DamagedError."""
    for name in file.sections:
        file.check(name)


def read_delta(stored: StoredFile) -> bytes:
    """The bytes published for a version. Raises FileNotFoundError, DamagedError."""
    with Container.open(stored, VERSION) as file:
        return file.section("delta")


def read_complete_delta(stored: StoredFile) -> Delta:
    """The delta published for a version, with complete dense weights. Raises FileNotFoundError, DamagedError."""
    with Container.open(stored, VERSION) as file:
        return complete_delta(file.section("delta"), _served_dense(file))


def read_tables(files: Sequence[Container], *, with_rows: bool = True) -> dict[str, FieldChange]:
    """By table of the last of consecutive files of changes, what they changed together. Raises DamagedError."""
    shapes = files[-1].header["fields"].items()
    return {name: _merged_change(files, name, shape, with_rows) for name, shape in shapes}


def read_served(files: Sequence[Container], keys: Mapping[str, UInt64s] | None = None) -> dict[str, EntriesChange]:
    """The same of the entries that serving holds; with `keys`, by table the only ones that are wanted."""
    shapes = files[-1].header["fields"].items()
    return {
        name: _merged_served(files, name, s["dim"], None if keys is None else keys.get(name, _NO_KEYS))
        for name, s in shapes
    }


def served_pieces(files: Sequence[Container], name: str) -> Iterator[ServedEntries]:
    """The entries that serving holds of a table after consecutive files of changes, in bounded pieces, by key.

    Raises DamagedError.
    """
    runs, dim = runs_of(files, f"fields/{name}/served"), files[-1].header["fields"][name]["dim"]
    for piece in merged_pieces(runs, keep_removed=False):
        try:
            yield decode_served(decode_run(piece, SERVED_WIDTHS, with_rest=True), dim).entries
        except InputError as failure:
            raise files[-1].damaged(f"{runs[-1].name}: {failure}") from None


def read_state(file: Container) -> StateChange:
    """The training state in a file of changes. Raises DamagedError."""
    return StateChange(
        {name: file.section(f"filters/{name}") for name in file.header["filters"]},
        {name: file.section(f"filter_changes/{name}") for name in file.header["filter_changes"]},
    )


def state_sections(state: StateChange) -> dict[str, Section]:
    """The sections of training state."""
    complete: dict[str, Section] = {f"filters/{name}": state.complete[name] for name in sorted(state.complete)}
    return complete | {f"filter_changes/{name}": state.changes[name] for name in sorted(state.changes)}


def read_touched(stored: StoredFile) -> dict[str, UInt64s]:
    """By table: [t] uint64 sorted, the served keys put or removed by a version, or by the dropped ones before it.

    Raises as `read_commit`.
    """
    with Container.open(stored, VERSION, TOUCHED) as file, file.parsing():
        return {name: _read_touched(file, name) for name in file.header["fields"]}


def write_touched(stored: StoredFile, keys: Mapping[str, UInt64s]) -> WrittenFile:
    """Write the keys that dropped versions touched. Raises VersionError."""
    sections: dict[str, Section] = {f"fields/{name}/touched": keys[name] for name in sorted(keys)}
    return write_container(stored, TOUCHED, {"fields": sorted(keys)}, sections)


def _row_sections(tables: Mapping[str, TableChange]) -> dict[str, Section]:
    runs = run_per_field(lambda name: _run_of_rows(name, tables[name]), sorted(tables))
    return {name: content for sections in runs.values() for name, content in sections.items()}


def _run_of_rows(table: str, change: TableChange) -> dict[str, Section]:
    name = f"fields/{table}/rows"
    return run_sections(name, encode_rows(change)) | filter_section(name, [change.keys, change.removed])


def _sections(commit: Commit) -> dict[str, Section]:
    """All sections but the rows."""
    sections: dict[str, Section] = {"dense": commit.dense, "delta": commit.delta}
    if commit.served_dense:
        sections["served_dense"] = commit.served_dense
    sections |= state_sections(StateChange(commit.training_state, commit.training_state_changes))
    served = run_per_field(lambda name: encode_served(commit.fields[name]), sorted(commit.fields))
    for name, run in served.items():
        sections |= run_sections(f"fields/{name}/served", run)
        touched = commit.fields[name].served_touched
        if touched is not None:
            sections[f"fields/{name}/touched"] = touched
    return sections


def commit_of(file: Container, fields: Mapping[str, FieldChange]) -> Commit:
    """The commit in a version's file, with `fields`. Raises DamagedError."""
    header, state = file.header, read_state(file)
    return Commit(
        id=VersionId.parse(header["id"]),
        parent=VersionId.parse(header["parent"]) if header["parent"] else None,
        fields=fields,
        dense=file.section("dense"),
        training_state=state.complete,
        training_state_changes=state.changes,
        delta=file.section("delta"),
        served_dense=_served_dense(file),
        quality=Quality(**header["quality"]),
        **{name: header[name] for name in (*_HEADER_NAMES, "validation", "quarantines_seen", "next_handles", "price")},
    )


def _served_dense(file: Container) -> bytes:
    return file.section("served_dense") if "served_dense" in file else b""


def runs_of(files: Sequence[Container], name: str) -> list[StoredRun]:
    """The runs of this name in consecutive files of changes. One that a migration added later is not in all of them."""
    return [StoredRun.open(file, name) for file in files if name in file]


def _merged_change(files: Sequence[Container], name: str, shape: Mapping[str, int], with_rows: bool) -> FieldChange:
    runs = runs_of(files, f"fields/{name}/rows") if with_rows else []
    rows = decode_rows(merged_arrays(runs, [shape["row_bytes"]]))
    entries, served_removed = _merged_served(files, name, shape["dim"])
    touched = f"fields/{name}/touched"
    served_touched = files[-1].array(touched, np.uint64) if touched in files[-1] and len(files) == 1 else None
    return FieldChange(
        shape["dim"], rows.keys, rows.rows, rows.removed, entries.keys, entries.handles, entries.bits, entries.payload,
        served_removed, served_touched,
    )  # fmt: skip


def _merged_served(files: Sequence[Container], name: str, dim: int, keys: UInt64s | None = None) -> EntriesChange:
    runs = runs_of(files, f"fields/{name}/served")
    arrays = merged_arrays(runs, SERVED_WIDTHS, with_rest=True, keys=keys)
    try:
        return decode_served(arrays, dim)
    except InputError as failure:
        raise files[-1].damaged(f"{runs[-1].name}: {failure}") from None


def _read_touched(file: Container, name: str) -> UInt64s:
    if (touched := f"fields/{name}/touched") in file:
        put = file.array(touched, np.uint64)
        if file.kind is TOUCHED:
            return put
        return union_keys([put, _merged_served([file], name, file.header["fields"][name]["dim"]).removed])
    entries, removed = _merged_served([file], name, file.header["fields"][name]["dim"])
    return union_keys([entries.keys, removed])
