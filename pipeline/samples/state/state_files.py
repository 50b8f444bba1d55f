"""The join's state as files: per shard a head (`*.join`) and segments (`*.rows`), and their manifest.

`ROUND.json` holds the number of stored states, each shard's head with its length and checksum, the segments that belong
to it, and the logs that all offsets refer to. All files are written first and one rename replaces the manifest: all
shards advance together or none does. A segment is written once and retained while the manifest names it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline.errors import DamagedError
from pipeline.files.atomic_file import write_atomically
from pipeline.formats.container import Container, digest_of
from pipeline.samples.state.segment_codec import SEGMENT
from pipeline.samples.state.snapshot import HEAD, Snapshot

_MANIFEST = "ROUND.json"
_SUFFIXES = (".join", ".rows")
_VERSION = 3


@dataclass(frozen=True)
class SegmentFile:
    """A segment in the file `name`.rows; shards whose segments have the same name share it."""

    name: str
    length: int


@dataclass(frozen=True)
class ShardFile:
    """The files of a shard's state.

    Attributes:
        name, length, digest: of the head; the digest is its container's.
        segments: those that the head names, in order.
        samples_offset, dead_letters_offset: ends of the shard's partitions when the state was written; what the shard
            emitted up to there is in the state.
    """

    name: str
    length: int
    digest: str
    segments: tuple[SegmentFile, ...]
    samples_offset: int
    dead_letters_offset: int

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return self.length + sum(segment.length for segment in self.segments)


@dataclass(frozen=True)
class StateManifest:
    """The state of all shards of a folder, stored together.

    Attributes:
        number: states stored in this folder: in process, of finished rounds; of a live shard, its own.
        log_ids: per topic (inputs, samples, dead letters), the log that the state's offsets refer to.
        shards: the shards' files, by shard.
    """

    number: int
    log_ids: Mapping[str, str]
    shards: tuple[ShardFile, ...]


@dataclass(frozen=True)
class StoredState:
    """The state of one shard in a folder, and the logs that its offsets refer to."""

    folder: Path
    file: ShardFile
    log_ids: Mapping[str, str]


_FORM = TypeAdapter(StateManifest)


def read_state_manifest(folder: Path) -> StateManifest | None:
    """The stored state of a folder, None without one. Raises DamagedError."""
    path = folder / _MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != _VERSION:
            raise ValueError(f"it has version {document['version']}, this release reads {_VERSION}")
        if document["digest"] != _digest_of(document["round"]):
            raise ValueError("its checksum does not match")
        manifest = _FORM.validate_python(document["round"])
        if not all(map(_is_own_name, _file_names(manifest))):
            raise ValueError("it names a file that is not one of this folder")
        return manifest
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as failure:
        raise DamagedError(f"{path} is damaged: {failure}. {_hint(folder)}") from failure


def write_state_manifest(folder: Path, manifest: StateManifest) -> None:
    """Make this the stored state of the folder, then delete the files that it does not name."""
    body = asdict(manifest)
    document = {"version": _VERSION, "digest": _digest_of(body), "round": body}
    write_atomically(folder / _MANIFEST, [json.dumps(document, indent=1).encode()])
    named = set(_file_names(manifest))
    for path in folder.iterdir():
        if path.suffix in _SUFFIXES and path.name not in named:
            path.unlink()


def latest_state(join_state: Path, shard: int) -> StoredState | None:
    """The shard's state with the highest offsets of emitted records, None without any. Raises DamagedError.

    It is that of the last round or of a live shard. Every one is valid, because what was emitted since is read from the
    log. Among equal ones the state of the highest epoch is preferred: no other process deletes its files.
    """
    states = []
    for folder, place in (*((live, 0) for live in _live_folders(join_state, shard)), (join_state, shard)):
        manifest = read_state_manifest(folder)
        if manifest is not None and place < len(manifest.shards):
            states.append(StoredState(folder, manifest.shards[place], manifest.log_ids))
    return max(states, key=lambda state: (state.file.samples_offset, state.file.dead_letters_offset), default=None)


def live_folder(join_state: Path, shard: int, epoch: int) -> Path:
    """The folder in which a live shard stores its state.

    Each epoch has its own folder, so that a fenced process cannot overwrite the state of its successor.
    """
    return join_state / f"live-{shard}-{epoch}"


def remove_earlier_epochs(join_state: Path, shard: int, epoch: int) -> None:
    """Delete the live states of the shard from epochs before `epoch`."""
    for folder in _live_folders(join_state, shard):
        if _epoch_of(folder) < epoch:
            shutil.rmtree(folder, ignore_errors=True)


def segment_names(file: ShardFile | None) -> frozenset[str]:
    """The names of the segments that are stored already."""
    return frozenset() if file is None else frozenset(segment.name for segment in file.segments)


def link_segments(source: Path, folder: Path, file: ShardFile) -> None:
    """Hard-link the segments of a state in `source` into `folder`: they are never written again, so no copy is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for segment in file.segments:
        with suppress(FileExistsError):
            os.link(_segment_path(source, segment.name), _segment_path(folder, segment.name))


def write_shard(folder: Path, name: str, state: Snapshot, ends: tuple[int, int]) -> ShardFile:
    """Write a shard's state, which counts once a manifest names it.

    `ends`: end offsets of its samples and dead-letters partitions.
    """
    head, segments = state.encode(
        lambda segment, encoded: write_atomically(_segment_path(folder, segment.name), [encoded])
    )
    write_atomically(folder / name, [head])
    return ShardFile(name, len(head), digest_of(head), tuple(SegmentFile(s.name, s.length) for s in segments), *ends)


def read_head(folder: Path, file: ShardFile) -> Container:
    """The head of a shard's state. Raises DamagedError if it is not the one that the manifest names."""
    head = Container.of(encoded := _read(folder / file.name), HEAD, name=str(folder / file.name))
    if (len(encoded), head.digest) != (file.length, file.digest):
        raise DamagedError(
            f"{head.name} has {len(encoded)} bytes with digest {head.digest}, wanted {file.length} with "
            f"{file.digest}. {_hint(folder)}"
        )
    return head


def read_shard(folder: Path, file: ShardFile) -> tuple[Container, Iterator[Container]]:
    """The head of a shard's state, and its segments, each read when it is reached. Raises DamagedError."""
    return read_head(folder, file), _read_segments(folder, file)


def _read_segments(folder: Path, file: ShardFile) -> Iterator[Container]:
    for segment in file.segments:
        path = _segment_path(folder, segment.name)
        yield Container.of(_read(path), SEGMENT, name=str(path))


def _live_folders(join_state: Path, shard: int) -> list[Path]:
    """Those of the highest epoch first."""
    folders = [path for path in join_state.glob(f"live-{shard}-*") if path.name.rpartition("-")[2].isdecimal()]
    return sorted(folders, key=_epoch_of, reverse=True)


def _epoch_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing. {_hint(path.parent)}") from None
    except OSError as failure:
        raise DamagedError(f"{path} cannot be read: {failure.strerror}. {_hint(path.parent)}") from None


def _hint(folder: Path) -> str:
    return f"hint: delete {folder}; the join then restarts at the offsets that its samples partitions record"


def _is_own_name(name: str) -> bool:
    """Whether a file of a state may have this name: one in the same folder, in characters of any file system."""
    return name.isascii() and name.isprintable() and Path(name).name == name and Path(name).suffix in _SUFFIXES


def _segment_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.rows"


def _file_names(manifest: StateManifest) -> list[str]:
    segments = [f"{segment.name}.rows" for shard in manifest.shards for segment in shard.segments]
    return [*(shard.name for shard in manifest.shards), *segments]


def _digest_of(body: Any) -> str:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()
