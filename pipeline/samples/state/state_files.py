"""Where the join's state lives between rounds: each shard's head, its segments, and the manifest that makes them count.

`ROUND.json` names the round, each shard's head (`*.join`) with its length and BLAKE2b-128, the segments (`*.rows`) that
go with it, and the logs that all offsets belong to. Segments are written once and kept for as long as a round names
them. All files are written first, the manifest is replaced by one rename: all shards move together or none does.
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
from pipeline.formats.atomic_file import write_atomically
from pipeline.samples.state.snapshot import Snapshot

_MANIFEST = "ROUND.json"
_SUFFIXES = (".join", ".rows")
_VERSION = 2


@dataclass(frozen=True)
class SegmentFile:
    """A segment; its file is called `name` and `.rows`. Shards whose segments have one name share it."""

    name: str
    length: int


@dataclass(frozen=True)
class ShardFile:
    """A shard's state: its files inside the folder, and how far it knows what the shard has said.

    Attributes:
        name, length, digest: the head's file; the digest is BLAKE2b-128, hex.
        segments: those it names, in order.
        samples_offset, dead_letters_offset: ends of the shard's own partitions when this was written.
    """

    name: str
    length: int
    digest: str
    segments: tuple[SegmentFile, ...]
    samples_offset: int
    dead_letters_offset: int

    @property
    def bytes(self) -> int:
        """What all its files take."""
        return self.length + sum(segment.length for segment in self.segments)


@dataclass(frozen=True)
class RoundManifest:
    """A finished round.

    Attributes:
        number: rounds finished in this folder.
        log_ids: per topic (inputs, samples, dead letters), the log that the state's offsets belong to.
        shards: the shards' files, by shard.
    """

    number: int
    log_ids: Mapping[str, str]
    shards: tuple[ShardFile, ...]


@dataclass(frozen=True)
class StoredState:
    """Where one shard's state lies, and the logs that its offsets belong to."""

    folder: Path
    file: ShardFile
    log_ids: Mapping[str, str]


_FORM = TypeAdapter(RoundManifest)


def read_round_manifest(folder: Path) -> RoundManifest | None:
    """The round that counts; None where there was none yet. Raises DamagedError."""
    path = folder / _MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != _VERSION or found["digest"] != _digest_of(found["round"]):
            raise ValueError("version or checksum do not match")
        manifest = _FORM.validate_python(found["round"])
        if any(Path(name).name != name or Path(name).suffix not in _SUFFIXES for name in _names(manifest)):
            raise ValueError("a shard's file is not in this folder")
        return manifest
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as failure:
        raise DamagedError(
            f"{path} is damaged: {failure}. hint: delete {folder}; the join then begins again where its samples say"
        ) from failure


def latest_state(join_state: Path, shard: int) -> StoredState | None:
    """The shard's state that knows most of what it has said: of the last round, or kept live; None without any.

    Any of them would do: what was said beyond is read from the log. Of equals it is the latest opening's, whose files
    nobody deletes. Raises DamagedError.
    """
    found = []
    for folder, place in (*((live, 0) for live in _live_folders(join_state, shard)), (join_state, shard)):
        manifest = read_round_manifest(folder)
        if manifest is not None and place < len(manifest.shards):
            found.append(StoredState(folder, manifest.shards[place], manifest.log_ids))
    return max(found, key=lambda kept: (kept.file.samples_offset, kept.file.dead_letters_offset), default=None)


def live_folder(join_state: Path, shard: int, epoch: int) -> Path:
    """Where a shard that runs on its own keeps its state, as rounds of one shard.

    Each opening has a folder of its own, so that one that was taken over spoils nothing for the one that did.
    """
    return join_state / f"live-{shard}-{epoch}"


def remove_earlier_epochs(join_state: Path, shard: int, epoch: int) -> None:
    """Delete what openings before that of `epoch` kept; a later one's is never touched by an earlier one."""
    for folder in _live_folders(join_state, shard):
        if _epoch_of(folder) < epoch:
            shutil.rmtree(folder, ignore_errors=True)


def link_segments(source: Path, folder: Path, file: ShardFile) -> None:
    """Make the segments of a state in `source` those of `folder` too, without a copy: they are never written again."""
    folder.mkdir(parents=True, exist_ok=True)
    for segment in file.segments:
        with suppress(FileExistsError):
            os.link(source / f"{segment.name}.rows", folder / f"{segment.name}.rows")


def _live_folders(join_state: Path, shard: int) -> list[Path]:
    """Those of the latest opening first."""
    return sorted(join_state.glob(f"live-{shard}-*"), key=_epoch_of, reverse=True)


def _epoch_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def write_round_manifest(folder: Path, manifest: RoundManifest) -> None:
    """Make this round the one that counts, and forget the files of others."""
    body = asdict(manifest)
    whole = {"version": _VERSION, "digest": _digest_of(body), "round": body}
    write_atomically(folder / _MANIFEST, [json.dumps(whole, indent=1).encode()])
    kept = set(_names(manifest))
    for path in folder.iterdir():
        if path.suffix in _SUFFIXES and path.name not in kept:
            path.unlink()


def segment_names(file: ShardFile | None) -> frozenset[str]:
    """The names of segments that need not be written again."""
    return frozenset() if file is None else frozenset(segment.name for segment in file.segments)


def write_shard(folder: Path, name: str, state: Snapshot, ends: tuple[int, int]) -> ShardFile:
    """Keep a shard's state; it counts once a manifest names it. `ends`: of its samples and dead-letters partitions."""
    head, found = state.encode(lambda segment, value: write_atomically(folder / f"{segment.name}.rows", [value]))
    write_atomically(folder / name, [head])
    digest = hashlib.blake2b(head, digest_size=16).hexdigest()
    return ShardFile(name, len(head), digest, tuple(SegmentFile(s.name, s.length) for s in found), *ends)


def read_shard(folder: Path, file: ShardFile) -> Iterator[tuple[str, bytes]]:
    """A shard's head and segments, each with its path. Raises DamagedError where one is not what the manifest says."""
    path = folder / file.name
    head = _read(path)
    digest = hashlib.blake2b(head, digest_size=16).hexdigest()
    if (len(head), digest) != (file.length, file.digest):
        raise DamagedError(
            f"{path} has {len(head)} bytes with digest {digest}, wanted {file.length} with {file.digest}. "
            f"{_hint(folder)}"
        )
    yield str(path), head
    for segment in file.segments:
        path = folder / f"{segment.name}.rows"
        yield str(path), _read(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing. {_hint(path.parent)}") from None


def _hint(folder: Path) -> str:
    return f"hint: delete {folder}; the join then begins again at what its samples partitions say it needs"


def _names(manifest: RoundManifest) -> list[str]:
    """The files of a round."""
    segments = [f"{segment.name}.rows" for shard in manifest.shards for segment in shard.segments]
    return [*(shard.name for shard in manifest.shards), *segments]


def _digest_of(body: Any) -> str:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()
