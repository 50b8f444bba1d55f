"""Commits of random rows without a trainer or publisher, and a model of what each version must hold."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.versions.deltas.delta import Delta, FieldDelta, encode_delta, served_digest
from pipeline.versions.deltas.quantizer import encode, payload_bytes
from pipeline.versions.deltas.served_view import ServedView
from pipeline.versions.state import Commit, FieldChange, VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.manual_clock import ManualClock

DIM = 4
ROW_BYTES = 24
MODEL = {"name": "model", "digest": "6d" * 16}

CONFIG = {
    "events": {
        "key": ["id"],
        "impressions": {"columns": {"id": "string", "user": "string"}},
        "clicks": {"columns": {"id": "string"}},
    },
    "fields": [{"name": "user", "columns": ["user"], "dim": DIM}],
}


def project_in(root: Path, shards: int = 1, **train: object) -> Project:
    """A project without a model file: enough for versions, logs and rollback."""
    config = parse_config({**CONFIG, "logs": {"shards": shards}, "train": train})
    return Project(root, config, ManualClock(10_000_000))


@dataclass
class World:
    """One shard's commits of random rows, and what each version must hold."""

    store: VersionStore
    shard: int = 0
    shards: int = 1
    seed: int = 1
    at_ms: int = 1_000_000
    step_ms: int = 1_000
    epoch: int = 0
    rows: dict[int, bytes] = field(default_factory=dict)
    served: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    next_handle: int = 0
    counters: bytearray = field(default_factory=lambda: bytearray(8192))
    samples_seen: int = 0
    expected: dict[VersionId, tuple[dict[int, bytes], dict[int, tuple[int, int, bytes]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed + self.shard)
        self.epoch = self.store.raise_epoch(self.shard)

    def restart(self) -> None:
        """Raise the epoch and continue from CURRENT, as a restarted trainer does."""
        self.epoch = self.store.raise_epoch(self.shard)
        current = self.store.current(self.shard)
        assert current is not None
        state = self.store.restore(current)
        self.rows, self.served = rows_of(state), served_of(state)
        self.next_handle = state.next_handles["user"]
        self.samples_seen = state.samples_seen

    def commit(self, full: bool = False, keys: int = 12, removals: int = 3) -> VersionId:
        """Change, add and remove some random rows; commit."""
        commit = self.build(full, keys, removals)
        self.store.commit(commit)
        self.expected[commit.id] = (dict(self.rows), dict(self.served))
        return commit.id

    def build(self, full: bool = False, keys: int = 12, removals: int = 3) -> Commit:
        """The next commit, not stored yet; the world already contains its changes."""
        parent, id = self.store.current(self.shard), self.store.next_id(self.shard)
        self.at_ms += self.step_ms
        self.samples_seen += 100
        self.counters[int(self.random.integers(len(self.counters)))] ^= 7
        touched = sorted({int(k) for k in self.random.integers(1, 60, keys)} if keys else set())
        removed = [k for k in sorted(self.rows) if k not in touched and self.random.random() < removals / 60]
        for key in touched:
            self.rows[key] = self.random.bytes(ROW_BYTES)
        for key in removed:
            self.rows.pop(key)
        put = [key for key in touched if self.random.random() < 0.8]
        new = [key for key in put if key not in self.served]
        tombstones = [key for key in removed if key in self.served]
        self._serve(put)
        for key in tombstones:
            self.served.pop(key)
        change = self._change(full, touched, removed, put, tombstones)
        dense = self.random.bytes(40)
        return Commit(
            id=id, parent=parent, epoch=self.epoch, offset=id.sequence * 10, row=7, log_id="log",
            first_at_ms=self.at_ms - 500, last_at_ms=self.at_ms, fields={"user": change}, dense=dense + b"optimizer",
            training_state={"user": self.random.bytes(16), "wide": bytes(self.counters)},
            validation={"label": {"auc": 0.5}}, quarantines_seen=[],
            next_handles={"user": self.next_handle}, model_digest=MODEL["digest"],
            digest=hashlib.sha256(repr(sorted(self.rows.items())).encode()).hexdigest(),
            served_digest=self.digest(dense), delta=self._delta(parent, id, put, new, tombstones, dense), full=full,
            samples_seen=self.samples_seen, price={"per_byte": 0.5},
        )  # fmt: skip

    def digest(self, dense: bytes) -> str:
        """The digest of the served view."""
        return served_digest({"user": view_of(self.served).digest()}, dense)

    def _serve(self, keys: list[int]) -> None:
        for key in keys:
            bits = int(self.random.choice([4, 8, 16, 32]))
            payload, _ = encode(self.random.normal(size=(1, DIM)).astype(np.float32), np.array([bits], np.uint8))
            handle = self.served[key][0] if key in self.served else self.next_handle
            self.next_handle += key not in self.served
            self.served[key] = (handle, bits, payload.tobytes())

    def _change(
        self, full: bool, touched: list[int], removed: list[int], put: list[int], tombstones: list[int]
    ) -> FieldChange:
        keys, shown = (sorted(self.rows), sorted(self.served)) if full else (touched, put)
        entries = [self.served[key] for key in shown]
        return FieldChange(
            dim=DIM,
            keys=np.array(keys, np.uint64),
            rows=np.frombuffer(b"".join(self.rows[k] for k in keys), np.uint8).reshape(-1, ROW_BYTES),
            removed=np.array(removed, np.uint64),
            served_keys=np.array(shown, np.uint64),
            served_handles=np.array([handle for handle, _, _ in entries], np.uint32),
            served_bits=np.array([bits for _, bits, _ in entries], np.uint8),
            served_payload=np.frombuffer(b"".join(payload for _, _, payload in entries), np.uint8),
            served_removed=np.array(tombstones, np.uint64),
            served_touched=np.array(put, np.uint64) if full else None,
        )

    def _delta(
        self,
        parent: VersionId | None,
        id: VersionId,
        put: list[int],
        new: list[int],
        tombstones: list[int],
        dense: bytes,
    ) -> bytes:
        known = [key for key in put if key not in new]
        entries = [self.served[key] for key in (*known, *new)]
        field_delta = FieldDelta(
            DIM,
            np.array([self.served[key][0] for key in known], np.uint32),
            np.array(new, np.uint64),
            np.array([self.served[key][0] for key in new], np.uint32),
            np.array([bits for _, bits, _ in entries], np.uint8),
            np.frombuffer(b"".join(payload for _, _, payload in entries), np.uint8),
            np.array(tombstones, np.uint64),
            np.zeros(len(known), np.bool_),
        )
        step = (id.generation, id.shard, id.shards, parent.sequence if parent else 0, id.sequence)
        times = (self.at_ms - 500, self.at_ms)
        fields, digests = {"user": field_delta}, {"user": view_of(self.served).digest()}
        return encode_delta(
            Delta("realtime", *step, *times, id.generation, None, self.digest(dense), fields, digests, dense, MODEL)
        )


def rows_of(state: Commit) -> dict[int, bytes]:
    """Rows by key."""
    change = state.fields["user"]
    return {int(key): row.tobytes() for key, row in zip(change.keys, change.rows, strict=True)}


def served_of(state: Commit) -> dict[int, tuple[int, int, bytes]]:
    """Handle, bits and payload by key."""
    change = state.fields["user"]
    return entries_of(change.served_keys, change.served_handles, change.served_bits, change.served_payload)


def entries_of(keys: object, handles: object, bits: object, payload: object) -> dict[int, tuple[int, int, bytes]]:
    """Handle, bits and payload by key, of arrays."""
    found, start = {}, 0
    for key, handle, bit in zip(keys, handles, bits, strict=True):
        end = start + payload_bytes(int(bit), DIM)
        found[int(key)] = (int(handle), int(bit), payload[start:end].tobytes())
        start = end
    assert start == len(payload)
    return found


def view_of(served: dict[int, tuple[int, int, bytes]]) -> ServedView:
    """A served view that holds the entries."""
    view, keys = ServedView(DIM), sorted(served)
    view.put(
        np.array(keys, np.uint64),
        np.array([served[k][0] for k in keys], np.uint32),
        np.array([served[k][1] for k in keys], np.uint8),
        np.frombuffer(b"".join(served[k][2] for k in keys), np.uint8),
    )
    return view
