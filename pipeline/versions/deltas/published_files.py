"""Published files: deltas as files for serving, each with a manifest that is written last.

`state/published/g<generation>/s<i>-of-<n>/<level>-<from>-<to>.delta` holds an encoded delta, which describes itself
(see `delta.py`). The `.json` file of the same name is its manifest: canonical JSON of `DeltaManifest` with a checksum.
Files of one part of the model are in such folders below `state/published/parts/NAME/DIGEST`, with the digest of its
definition.
Readers ignore a delta file without a manifest. Both files are written under a temporary name, fsynced and renamed.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from pydantic import TypeAdapter

from pipeline.errors import DamagedError, DeltaError
from pipeline.files.interface import StoredFile, StoredFolder
from pipeline.versions.deltas.delta import FORMAT, Delta, Level, decode_delta, delta_name
from pipeline.versions.deltas.quantizer import PRECISIONS
from pipeline.versions.deltas.row_bounds import RowBounds
from pipeline.versions.quality import Quality
from pipeline.versions.state import VersionId

_SAME_NAMES = (
    "level", "generation", "base_generation", "shard", "shards", "from_sequence", "to_sequence", "first_at_ms",
    "last_at_ms", "before", "after",
)  # fmt: skip
"""Attributes of a delta that its manifest has under the same name."""
_MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class DeltaManifest:
    """The description of a published delta, available without opening its file; `Delta` documents the shared names.

    Attributes:
        file: name of the delta file in the manifest's folder; empty for a delta without one.
        size_bytes: of the delta file.
        name: the delta's name, which is its checksum.
        sha256: of the delta file.
        rows: number of rows.
        removed: number of tombstones.
        precisions: rows by bits, as strings.
        quality: of what serving holds afterwards; None in a reverse delta.
    """

    format: int
    level: Level
    generation: int
    base_generation: int
    shard: int
    shards: int
    from_sequence: int
    to_sequence: int
    first_at_ms: int
    last_at_ms: int
    before: str | None
    after: str
    file: str
    size_bytes: int
    name: str
    sha256: str
    rows: int
    removed: int
    precisions: dict[str, int]
    model: dict[str, str]
    quality: Quality | None = None

    @property
    def place(self) -> str:
        """The path of its file below the published folder, without the suffix."""
        folder = VersionId(self.generation, self.shard, self.shards, self.to_sequence).folder
        return f"{folder}/{self.level}-{self.from_sequence}-{self.to_sequence}"

    def to_json(self) -> str:
        """Canonical JSON with `checksum`, a SHA-256 over the other entries."""
        plain = asdict(self)
        return _canonical({**plain, "checksum": _checksum(plain)}) + "\n"

    @staticmethod
    def from_json(text: str, stored: StoredFile) -> "DeltaManifest":
        """Parse a manifest. Raises DamagedError that names `stored`."""
        try:
            plain = json.loads(text)
            wanted = plain.pop("checksum")
            if plain["format"] != FORMAT:
                raise ValueError(f"format {plain['format']}, wanted {FORMAT}: another release wrote it")
            manifest = _FORM.validate_python(plain)
            if asdict(manifest) != plain:
                raise ValueError("entries or types that this release does not write")
            got = _checksum(plain)
            if got != wanted:
                raise ValueError(f"checksum {got[:12]}, wanted {str(wanted)[:12]}")
            if (manifest.place, manifest.file) != (_place_of(stored), delta_file(stored).base):
                raise ValueError(f"it is the manifest of {manifest.place}")
            return manifest
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
            raise DamagedError(
                f"manifest {stored} cannot be read: {failure}. run: springtide publish --level full"
            ) from None


_FORM = TypeAdapter(DeltaManifest)


def published_folder(folder: StoredFolder, part: str | None) -> StoredFolder:
    """The folder of the files of the whole model, or of the part whose folder is `part`, below the published folder."""
    return folder if part is None else folder.folder(f"parts/{part}")


def write_published(
    folder: StoredFolder, delta: Delta, encoded: bytes, quality: Quality | None = None
) -> DeltaManifest:
    """Write a delta and then its manifest below `folder`; both are durable on return.

    Writing the same delta again changes nothing, but replaces a damaged file. Raises DeltaError if another delta was
    published under the same name.
    """
    stem = f"{delta.level}-{delta.from_sequence}-{delta.to_sequence}"
    stored = folder.folder(delta.to_version.folder) / f"{stem}.json"
    manifest = delta_manifest(delta, encoded, f"{stem}.delta", quality)
    existing = _intact(stored)
    if existing is not None:
        if existing.name == manifest.name:
            return existing
        raise DeltaError(
            f"{stored} holds delta {existing.name[:12]}, not {manifest.name[:12]}. hint: published files never change"
        )
    delta_file(stored).write([encoded])
    stored.write([manifest.to_json().encode()])
    return manifest


def delta_manifest(delta: Delta, encoded: bytes, file: str, quality: Quality | None = None) -> DeltaManifest:
    """The manifest of a delta stored in `file`, with the quality of its version."""
    bits = np.concatenate([np.empty(0, np.uint8), *(f.bits for f in delta.fields.values())])
    return DeltaManifest(
        format=FORMAT,
        **{name: getattr(delta, name) for name in _SAME_NAMES},
        file=file,
        size_bytes=len(encoded),
        name=delta_name(encoded),
        sha256=hashlib.sha256(encoded).hexdigest(),
        rows=len(bits),
        removed=sum(len(f.removed) for f in delta.fields.values()),
        precisions={str(precision): int(np.count_nonzero(bits == precision)) for precision in PRECISIONS},
        model=dict(delta.model),
        quality=quality,
    )


def delta_manifest_files(folder: StoredFolder, shard: int, shards: int) -> list[StoredFile]:
    """One shard's manifests, by name."""
    own = re.compile(rf"g\d+/s{shard}-of-{shards}/[^./][^/]*\.json")
    return sorted((file for name, file in folder.list() if own.fullmatch(name)), key=lambda file: file.name)


def delta_manifests(folder: StoredFolder, shard: int, shards: int) -> Iterator[tuple[StoredFile, DeltaManifest]]:
    """One shard's manifests with their files. Raises DamagedError for one that cannot be read."""
    for stored in delta_manifest_files(folder, shard, shards):
        yield stored, read_delta_manifest(stored)


def delta_file(manifest: StoredFile) -> StoredFile:
    """The file of the delta that the manifest in the file `manifest` describes."""
    return manifest.beside(manifest.base.removesuffix(".json") + ".delta")


def read_delta_manifest(stored: StoredFile) -> DeltaManifest:
    """The manifest in a file. Raises DamagedError, FileNotFoundError, FilesError."""
    try:
        text = stored.read(_MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise DamagedError(f"manifest {stored} cannot be read: {failure.strerror}. hint: remove it") from None
    return DeltaManifest.from_json(text.decode("utf-8", errors="replace"), stored)


def read_published(stored: StoredFile, manifest: DeltaManifest) -> tuple[Delta, bytes]:
    """The delta of the manifest in the file `stored`, verified against it. Raises DamagedError that names the file."""
    file = delta_file(stored)
    try:
        encoded = file.read()
    except FileNotFoundError:
        raise DamagedError(f"{file} is missing, its manifest exists. run: springtide publish --level full") from None
    except OSError as failure:
        raise DamagedError(f"{file} cannot be read: {failure.strerror}. hint: remove it") from None
    got = hashlib.sha256(encoded).hexdigest()
    if got != manifest.sha256:
        raise DamagedError(
            f"{file} has {len(encoded)} bytes and sha256 {got[:12]}, its manifest has {manifest.size_bytes} and "
            f"{manifest.sha256[:12]}. run: springtide publish --level full"
        )
    delta = decode_delta(encoded, RowBounds(rows=manifest.rows, removed=manifest.removed))
    described = delta_manifest(delta, encoded, manifest.file, manifest.quality)
    if described != manifest:
        raise DamagedError(
            f"{file} holds {delta}, its manifest describes {manifest.place}. run: springtide publish --level full"
        )
    return delta, encoded


def _intact(stored: StoredFile) -> DeltaManifest | None:
    """The manifest in a file; None if it does not exist, or it or its delta is damaged."""
    try:
        manifest = read_delta_manifest(stored)
        read_published(stored, manifest)
    except (FileNotFoundError, DamagedError):
        return None
    return manifest


def _place_of(stored: StoredFile) -> str:
    """The last two folders and the stem of a name."""
    return "/".join(stored.name.removesuffix(".json").split("/")[-3:])


def _canonical(plain: dict[str, object]) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def _checksum(plain: dict[str, object]) -> str:
    return hashlib.sha256(_canonical(plain).encode()).hexdigest()
