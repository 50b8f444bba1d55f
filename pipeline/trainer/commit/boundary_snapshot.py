"""A trainer shard at a batch boundary: progress, the snapshot that a commit stores, and its digest.

A version holds rows, served view, admission counters, expiry clocks, dense weights, validation and sample position. Its
digest covers only what training depends on, so it does not change with the cadence of commits.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.arrays.types import Int64s, UInt8s
from pipeline.configuration.config import Config
from pipeline.importance.fields.inputs import InputColumns
from pipeline.importance.fields.live import LiveImportance
from pipeline.model.identity import Identity
from pipeline.model.training.curvature import Curvature
from pipeline.publish.field_delta import ServedChange
from pipeline.publish.price.dense_weights import TrainedWeights
from pipeline.trainer.batch.batches import SamplePosition
from pipeline.trainer.commit.file_check import FileCheck
from pipeline.trainer.commit.served_loss import FirstBatch
from pipeline.trainer.items.source import ItemSource
from pipeline.trainer.tables.filtered_table import TableCounts
from pipeline.trainer.tables.table import Changes, Rows
from pipeline.trainer.tables.tables import Tables
from pipeline.trainer.validation.gate.gate import GATE, Gate, GateState
from pipeline.trainer.validation.label_ages import label_ages
from pipeline.trainer.validation.label_validation import LabelValidation
from pipeline.trainer.validation.list_validation import ListValidation, with_lists
from pipeline.trainer.validation.loss_sum import LossSum
from pipeline.trainer.validation.matured import MaturedLabels
from pipeline.versions.state import FieldChange

FIELD_IMPORTANCE = "importance"
"""The name of the state of `LiveImportance` in a version."""
ITEM_SOURCE = "candidates"
"""The name of the state of `ItemSource` in a version, which its digest covers: that of the first format."""
LATE = "late"
"""The name of a `LateGradient` in a version."""
LOSS = "loss"
"""The name of the state of `LossSum` in a version."""
_NEVER_MS = int(np.iinfo(np.int64).max)


@dataclass
class TrainerProgress:
    """How far a shard has come. Training changes it batch by batch."""

    position: SamplePosition
    last_at_ms: int
    """Log time: the largest sample time learned from."""
    samples_seen: int
    validations: dict[str, LabelValidation]
    """Progressive validation by label."""
    matured: dict[str, MaturedLabels]
    """Of the labels that can no longer change, by label."""
    importance: LiveImportance
    """Of fields, tables and dense inputs."""
    lists: dict[str, ListValidation] = field(default_factory=dict)
    """Validation of the order of lists, of the labels with `top`."""
    items: ItemSource | None = None
    """Of a label with two towers."""
    gate: Gate | None = None
    """Tests of new samples, if configured."""
    loss: LossSum = field(default_factory=LossSum)
    """Of the samples learned from."""
    first_at_ms: int = _NEVER_MS
    """The smallest sample time since the last commit."""

    @classmethod
    def start(cls, config: Config, item_inputs: Collection[str] = ()) -> "TrainerProgress":
        """Before the first sample; `item_inputs`: the Keras inputs that the item tower reads."""
        validations = {label.name: LabelValidation(label.loss) for label in config.outputs}
        ages = label_ages(config)
        matured = {label.name: MaturedLabels(label.loss, ages[label.name]) for label in config.outputs}
        importance = LiveImportance(InputColumns.of(config), config.train.half_life_s)
        lists = {
            label.name: ListValidation(label.top, label.teacher is not None) for label in config.outputs if label.top
        }
        items = ItemSource(config, item_inputs) if config.towers else None
        gate = Gate(config.gate) if config.gate else None
        return cls(SamplePosition(0, 0), 0, 0, validations, matured, importance, lists, items, gate)

    def learned(self, at_ms: Int64s, end: SamplePosition, log_ms: int) -> None:
        """Move past a batch of samples at `at_ms` [n], to the log time `log_ms`."""
        self.position, self.last_at_ms = end, log_ms
        self.first_at_ms = min(self.first_at_ms, int(at_ms.min()))
        self.samples_seen += len(at_ms)

    def validation(self) -> dict[str, Any]:
        """By label the report of its progressive validation."""
        reports = {
            label: {**validation.report(), "matured": self.matured[label].report()}
            for label, validation in self.validations.items()
        }
        return reports | {label: with_lists(reports[label], lists.report()) for label, lists in self.lists.items()}

    def committed(self) -> None:
        """Begin the next commit's range of sample times."""
        self.first_at_ms = _NEVER_MS


@dataclass(frozen=True)
class BoundarySnapshot:
    """A shard at one batch boundary, apart from its rows: copies, which training no longer changes.

    Attributes:
        dense: dense weights with their optimizer state.
        serving_dense: the dense weights that serving needs, as trained.
        training_state: everything else a shard needs to continue, by name.
        validation: progressive validation, for people and JSON.
        importance: of fields and dense inputs.
        table_importance: of tables.
        tables: by table, its counts.
        admission: by table, the digest of what decides admission.
        quarantines_seen: ids of the quarantines in force.
        flush: publish every withheld row too.
        curvature: where `dense` shows how much the loss depends on each weight; None to serve exact weights.
        gate: state of the gate.
        first: the first batch after the commit before, if serving is to be compared with the trainer on it.
        check: of the file that the gate held at the commit before, if one was due.
    """

    progress: TrainerProgress
    dense: bytes
    serving_dense: bytes
    training_state: dict[str, bytes]
    validation: dict[str, Any]
    importance: dict[str, float]
    table_importance: dict[str, float]
    tables: dict[str, TableCounts]
    admission: dict[str, str]
    quarantines_seen: list[int]
    flush: bool
    curvature: Curvature | None = None
    gate: GateState = "healthy"
    first: FirstBatch | None = None
    check: FileCheck | None = None

    @property
    def published_dense(self) -> bytes | TrainedWeights:
        """The dense weights for the publisher."""
        return self.serving_dense if self.curvature is None else TrainedWeights(self.dense, self.curvature)


def field_change(changes: Changes, served: ServedChange, dim: int) -> FieldChange:
    """What a commit holds of one table of `dim` weights: rows and served entries that changed."""
    return FieldChange(
        dim=dim,
        keys=changes.touched,
        rows=packed(changes.rows),
        removed=changes.removed,
        served_keys=served.keys,
        served_handles=served.handles,
        served_bits=served.bits,
        served_payload=served.payload,
        served_removed=served.removed,
    )


def packed(rows: Rows) -> UInt8s:
    """[n, row bytes] uint8 of [n] packed rows, the same memory."""
    return rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)


def training_state_of(tables: Tables, progress: TrainerProgress, identity: Identity) -> dict[str, bytes]:
    """Everything besides rows, served view and dense weights that a shard needs to continue, as named bytes."""
    state = {"identity": json.dumps(identity, sort_keys=True).encode()}
    for name, table in tables.by_name.items():
        state[f"admission.{name}"] = table.admitter.to_bytes()
        state[f"expiry.{name}"] = table.sweeper.to_bytes()
    for label, validation in progress.validations.items():
        state[f"validation.{label}"] = validation.to_bytes()
        state[f"matured.{label}"] = progress.matured[label].to_bytes()
    for label, lists in progress.lists.items():
        state[f"lists.{label}"] = lists.to_bytes()
    state[FIELD_IMPORTANCE] = progress.importance.to_bytes()
    state[LOSS] = progress.loss.to_bytes()
    if progress.items is not None:
        state[ITEM_SOURCE] = progress.items.to_bytes()
    if progress.gate is not None:
        state[GATE] = progress.gate.to_bytes()
    if tables.late is not None:
        state[LATE] = tables.late.to_bytes()
    return state


def training_digest(snapshot: BoundarySnapshot, rows: Mapping[str, int]) -> str:
    """Hex SHA-256 over what training depends on: rows, admission, expiry clocks, dense weights, position, log time,
    items of two towers, a late gradient.

    Args:
        snapshot: everything except the rows.
        rows: by table, its digest at the same boundary.
    """
    progress = snapshot.progress
    parts: dict[str, Any] = {
        "dense": hashlib.sha256(snapshot.dense).hexdigest(),
        "position": list(progress.position),
        "last_at_ms": progress.last_at_ms,
        "samples_seen": progress.samples_seen,
    }
    for name in {ITEM_SOURCE, LATE} & set(snapshot.training_state):
        parts[name] = hashlib.sha256(snapshot.training_state[name]).hexdigest()
    for name, digest in rows.items():
        expiry = hashlib.sha256(snapshot.training_state[f"expiry.{name}"]).hexdigest()
        parts[f"field {name}"] = [digest, snapshot.tables[name].rows, snapshot.admission[name], expiry]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
