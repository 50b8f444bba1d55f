"""Where the join's state lives between rounds: one file per shard and round, and the manifest that makes them count.

`ROUND.json` names the round, each shard's file with its length and BLAKE2b-128, and the logs that all offsets belong
to. Shard files are written first, the manifest is replaced by one rename: all shards move together or none does.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline.ground.durable import write_whole
from pipeline.ground.errors import DamagedError

_MANIFEST = "ROUND.json"
_VERSION = 1


@dataclass(frozen=True)
class ShardFile:
    """A shard's state: its file inside the folder, and how far it knows what the shard has said.

    Attributes:
        name, length, digest: the file; the digest is BLAKE2b-128, hex.
        samples_offset, dead_letters_offset: ends of the shard's own partitions when this was written.
    """

    name: str
    length: int
    digest: str
    samples_offset: int
    dead_letters_offset: int


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
class Kept:
    """Where one shard's state lies, and the logs that its offsets belong to."""

    folder: Path
    file: ShardFile
    log_ids: Mapping[str, str]


_FORM = TypeAdapter(RoundManifest)


def read_manifest(folder: Path) -> RoundManifest | None:
    """The round that counts; None where there was none yet. Raises DamagedError."""
    path = folder / _MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != _VERSION or found["digest"] != _digest_of(found["round"]):
            raise ValueError("version or checksum do not match")
        manifest = _FORM.validate_python(found["round"])
        if any(not shard.name.endswith(".join") or Path(shard.name).name != shard.name for shard in manifest.shards):
            raise ValueError("a shard's file is not in this folder")
        return manifest
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as failure:
        raise DamagedError(
            f"{path} is damaged: {failure}. hint: delete {folder}; the join then begins again where its samples say"
        ) from failure


def newest_kept(join_state: Path, shard: int) -> Kept | None:
    """The shard's state that knows most of what it has said: of the last round, or kept live; None without any.

    Any of them would do: what was said beyond is read from the log. Raises DamagedError.
    """
    found = []
    for folder, place in ((join_state, shard), (live_folder(join_state, shard), 0)):
        manifest = read_manifest(folder)
        if manifest is not None and place < len(manifest.shards):
            found.append(Kept(folder, manifest.shards[place], manifest.log_ids))
    return max(found, key=lambda kept: (kept.file.samples_offset, kept.file.dead_letters_offset), default=None)


def live_folder(join_state: Path, shard: int) -> Path:
    """Where a shard that runs on its own keeps its state, as a round of one shard."""
    return join_state / f"live-{shard}"


def write_manifest(folder: Path, manifest: RoundManifest) -> None:
    """Make this round the one that counts, and forget the files of others."""
    body = asdict(manifest)
    whole = {"version": _VERSION, "digest": _digest_of(body), "round": body}
    write_whole(folder / _MANIFEST, [json.dumps(whole, indent=1).encode()])
    kept = {s.name for s in manifest.shards}
    for path in folder.glob("*.join"):
        if path.name not in kept:
            path.unlink()


def write_shard(folder: Path, name: str, state: bytes, ends: tuple[int, int]) -> ShardFile:
    """Keep a shard's state; it counts once a manifest names it. `ends`: of its samples and dead-letters partitions."""
    write_whole(folder / name, [state])
    return ShardFile(name, len(state), hashlib.blake2b(state, digest_size=16).hexdigest(), *ends)


def read_shard(folder: Path, file: ShardFile) -> bytes:
    """A shard's state. Raises DamagedError where it is not what the manifest says."""
    path = folder / file.name
    hint = f"hint: delete {folder}; the join then begins again at what its samples partitions say it needs"
    try:
        state = path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing. {hint}") from None
    digest = hashlib.blake2b(state, digest_size=16).hexdigest()
    if (len(state), digest) != (file.length, file.digest):
        raise DamagedError(
            f"{path} has {len(state)} bytes with digest {digest}, wanted {file.length} with {file.digest}. {hint}"
        )
    return state


def _digest_of(body: Any) -> str:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()
