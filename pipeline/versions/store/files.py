"""Version files: a commit encoded as a container. The header is the manifest (`schemas/manifest.json`).

Sections: `dense`, `delta`, `served_dense` unless it is empty, `filters/NAME`, `filter_changes/NAME`, and for each table
`fields/NAME/PART`, where PART is an attribute of `FieldChange`. A file of kind `TOUCHED` holds only the keys that
dropped versions touched, as `fields/NAME/touched`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arrays.types import UInt64s
from pipeline.formats.container import Container, Draft, Kind, Section, WrittenFile, write_container
from pipeline.versions.deltas.delta import Delta, complete_delta
from pipeline.versions.deltas.quantizer import payload_offsets
from pipeline.versions.quality import Quality
from pipeline.versions.state import Commit, FieldChange, ServedEntries, TableChange, VersionId, union_keys

FIX = "restore the file from a backup, or roll back to a version before it: springtide versions"
VERSION, TOUCHED = Kind(b"vers", FIX, format=5), Kind(b"keys", FIX)
"""Format 5 of versions: rows have a curvature, versions a price and a quality."""
_HEADER_NAMES = (
    "epoch", "offset", "row", "log_id", "first_at_ms", "last_at_ms", "model_digest", "digest", "served_digest", "full",
    "samples_seen",
)  # fmt: skip
_ARRAYS = {
    "keys": np.uint64,
    "removed": np.uint64,
    "served_keys": np.uint64,
    "served_handles": np.uint32,
    "served_bits": np.uint8,
    "served_payload": np.uint8,
    "served_removed": np.uint64,
}


def write_commit(path: Path, commit: Commit) -> WrittenFile:
    """Write a version's file. Raises VersionError, and then leaves no file."""
    return write_container(path, VERSION, version_manifest(commit), _sections(commit))


def draft_commit(path: Path, tables: Mapping[str, TableChange]) -> Draft:
    """Begin a version's file with its rows; `finish_commit` completes it. Raises VersionError."""
    sections: dict[str, Section] = {
        f"fields/{name}/{part}": getattr(tables[name], part) for name in sorted(tables) for part in TableChange._fields
    }
    return Draft(path, VERSION, sections)


def finish_commit(draft: Draft, commit: Commit) -> WrittenFile:
    """Complete a draft that holds the commit's rows. Returns and raises as `write_commit`."""
    return draft.finish(version_manifest(commit), _sections(commit))


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


def read_version_manifest(path: Path) -> dict[str, Any]:
    """The header of a version's file. Raises FileNotFoundError, DamagedError."""
    with Container.open(path, VERSION) as file:
        return file.header


def read_quality(path: Path) -> Quality:
    """The quality of what serving holds at a version. Raises FileNotFoundError, DamagedError."""
    with Container.open(path, VERSION) as file, file.parsing():
        return Quality(**file.header["quality"])


def read_commit(path: Path) -> Commit:
    """Read a version's file. Raises FileNotFoundError, DamagedError."""
    with Container.open(path, VERSION) as file, file.parsing():
        fields = {name: _read_change(file, name, shape) for name, shape in file.header["fields"].items()}
        return _commit_of(file, fields)


def read_outline(path: Path) -> Commit:
    """Read a version's file without rows and served entries: fields are empty. Raises as `read_commit`."""
    with Container.open(path, VERSION) as file, file.parsing():
        shapes = file.header["fields"].items()
        return _commit_of(file, {name: FieldChange.empty(s["dim"], s["row_bytes"]) for name, s in shapes})


def check_file(path: Path) -> None:
    """Verify all checksums of a version's file. Raises FileNotFoundError, DamagedError."""
    with Container.open(path, VERSION) as file:
        for name in file.sections:
            file.section(name)


def read_delta(path: Path) -> bytes:
    """The bytes published for a version. Raises FileNotFoundError, DamagedError."""
    with Container.open(path, VERSION) as file:
        return file.section("delta")


def read_complete_delta(path: Path) -> Delta:
    """The delta published for a version, with complete dense weights. Raises FileNotFoundError, DamagedError."""
    with Container.open(path, VERSION) as file:
        return complete_delta(file.section("delta"), _served_dense(file))


def read_served(path: Path) -> dict[str, tuple[ServedEntries, UInt64s]]:
    """By table: the served entries in a version's file and its served tombstones. Raises as `read_commit`."""
    with Container.open(path, VERSION) as file, file.parsing():
        return {name: _read_served(file, name, shape["dim"]) for name, shape in file.header["fields"].items()}


def read_touched(path: Path) -> dict[str, UInt64s]:
    """By table: [t] uint64 sorted, the served keys put or removed by a version, or by the dropped ones before it.

    Raises as `read_commit`.
    """
    with Container.open(path, VERSION, TOUCHED) as file, file.parsing():
        if file.kind is TOUCHED:
            return {name: file.array(f"fields/{name}/touched", np.uint64) for name in file.header["fields"]}
        return {name: _read_touched(file, name) for name in file.header["fields"]}


def write_touched(path: Path, keys: Mapping[str, UInt64s]) -> WrittenFile:
    """Write the keys that dropped versions touched. Raises VersionError."""
    sections: dict[str, Section] = {f"fields/{name}/touched": keys[name] for name in sorted(keys)}
    return write_container(path, TOUCHED, {"fields": sorted(keys)}, sections)


def _sections(commit: Commit) -> dict[str, Section]:
    sections: dict[str, Section] = {"dense": commit.dense, "delta": commit.delta}
    if commit.served_dense:
        sections["served_dense"] = commit.served_dense
    for name in sorted(commit.training_state):
        sections[f"filters/{name}"] = commit.training_state[name]
    for name in sorted(commit.training_state_changes):
        sections[f"filter_changes/{name}"] = commit.training_state_changes[name]
    for name in sorted(commit.fields):
        change = commit.fields[name]
        for part in (*_ARRAYS, "rows"):
            sections[f"fields/{name}/{part}"] = getattr(change, part)
        if change.served_touched is not None:
            sections[f"fields/{name}/served_touched"] = change.served_touched
    return sections


def _commit_of(file: Container, fields: Mapping[str, FieldChange]) -> Commit:
    header = file.header
    return Commit(
        id=VersionId.parse(header["id"]),
        parent=VersionId.parse(header["parent"]) if header["parent"] else None,
        fields=fields,
        dense=file.section("dense"),
        training_state={name: file.section(f"filters/{name}") for name in header["filters"]},
        training_state_changes={name: file.section(f"filter_changes/{name}") for name in header["filter_changes"]},
        delta=file.section("delta"),
        served_dense=_served_dense(file),
        quality=Quality(**header["quality"]),
        **{name: header[name] for name in (*_HEADER_NAMES, "validation", "quarantines_seen", "next_handles", "price")},
    )


def _served_dense(file: Container) -> bytes:
    return file.section("served_dense") if "served_dense" in file else b""


def _read_change(file: Container, name: str, shape: Mapping[str, int]) -> FieldChange:
    arrays = {part: file.array(f"fields/{name}/{part}", dtype) for part, dtype in _ARRAYS.items()}
    if shape["row_bytes"] < 0:  # NumPy would infer the size
        raise ValueError(f"rows of {shape['row_bytes']} bytes")
    rows = file.array(f"fields/{name}/rows", np.uint8).reshape(len(arrays["keys"]), shape["row_bytes"])
    _check_entries(file, name, _entries_of(arrays, shape["dim"]))
    touched = f"fields/{name}/served_touched"
    served_touched = file.array(touched, np.uint64) if touched in file else None
    return FieldChange(dim=shape["dim"], rows=rows, served_touched=served_touched, **arrays)


def _read_served(file: Container, name: str, dim: int) -> tuple[ServedEntries, UInt64s]:
    parts = ("served_keys", "served_handles", "served_bits", "served_payload")
    entries = _entries_of({part: file.array(f"fields/{name}/{part}", _ARRAYS[part]) for part in parts}, dim)
    _check_entries(file, name, entries)
    return entries, file.array(f"fields/{name}/served_removed", np.uint64)


def _entries_of(arrays: Mapping[str, Any], dim: int) -> ServedEntries:
    return ServedEntries(
        dim, arrays["served_keys"], arrays["served_handles"], arrays["served_bits"], arrays["served_payload"]
    )


def _check_entries(file: Container, name: str, entries: ServedEntries) -> None:
    """Raises DamagedError if the parts have different lengths."""
    wanted = int(payload_offsets(entries.bits, entries.dim)[-1])
    lengths = (len(entries.keys), len(entries.handles), len(entries.bits), len(entries.payload))
    if lengths != (len(entries), len(entries), len(entries), wanted):
        raise file.damaged(
            f"served entries of {name} have {lengths} keys, handles, precisions and payload bytes, "
            f"wanted equally many and {wanted} bytes"
        )


def _read_touched(file: Container, name: str) -> UInt64s:
    part = "served_touched" if f"fields/{name}/served_touched" in file else "served_keys"
    put = file.array(f"fields/{name}/{part}", np.uint64)
    return union_keys([put, file.array(f"fields/{name}/served_removed", np.uint64)])
