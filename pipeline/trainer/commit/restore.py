"""From a version back to a shard's memory: tables, progress, dense weights, and what serving holds."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from pipeline.configuration.config import Config
from pipeline.configuration.model.tables import tables_of
from pipeline.errors import LogReplacedError, MigrationError
from pipeline.model.dense import DenseModel
from pipeline.model.identity import Identity, differences, unchanged_tables
from pipeline.publish.price.byte_price import Price
from pipeline.trainer.batch.batches import SamplePosition
from pipeline.trainer.commit.boundary_snapshot import FIELD_IMPORTANCE, ITEM_SOURCE, LATE, LOSS, TrainerProgress
from pipeline.trainer.commit.lineage import LineageHead, ServedState, VersionOrigin, identity_in
from pipeline.trainer.tables.filtered_table import TableState
from pipeline.trainer.tables.late_gradient import LateGradient
from pipeline.trainer.tables.table import stored_row_bytes
from pipeline.trainer.tables.tables import Tables
from pipeline.trainer.validation.gate.gate import GATE, Gate
from pipeline.trainer.validation.label_validation import LabelValidation
from pipeline.trainer.validation.loss_sum import LossSum
from pipeline.versions.deltas.delta import served_dense_of
from pipeline.versions.deltas.served_view import ServedView
from pipeline.versions.state import Commit, ServedEntries
from pipeline.versions.store.row_reader import RowReader
from pipeline.versions.store.version_store import VersionStore


@dataclass(frozen=True)
class RestoredShard:
    """A shard as of CURRENT, or an empty one."""

    tables: Tables
    progress: TrainerProgress
    lineage: LineageHead
    served: ServedState
    stored: RowReader | None = None
    """Reads rows of CURRENT, if some of them may be on disk only."""


def restore_shard(
    config: Config, versions: VersionStore, origin: VersionOrigin, model: DenseModel, migrate: bool
) -> RestoredShard:
    """The shard as of CURRENT; its dense weights are loaded into `model`.

    Raises:
        LogReplacedError: the samples topic is not the one CURRENT was trained from.
        MigrationError: configuration or model changed since CURRENT, and `migrate` is false. With `migrate`, new and
            changed tables start empty.
    """
    current = versions.current(origin.shard)
    stored = None
    if config.train.memory_bytes is not None:
        row_bytes = {name: stored_row_bytes(table) for name, table in tables_of(config.fields).items()}
        stored = versions.row_reader(row_bytes)
    if current is None:
        served = ServedState(partial(_empty_views, config), {}, b"")
        progress = TrainerProgress.start(config, model.item_inputs)
        return RestoredShard(Tables(config, stored=stored), progress, LineageHead(), served, stored)
    if stored is not None:
        stored.renew(current)
    commit = versions.restore(current) if stored is None else versions.outline(current)
    _check_log(config, origin, commit)
    before = identity_in(commit)
    changed = differences(before, origin.identity)
    if not migrate:
        refuse_changed(commit, origin.identity)
    names = unchanged_tables(before, origin.identity)
    tables = restore_tables(commit, config, names, stored)
    if changed:
        model.load_matching(commit.dense, optimizer=before.get("optimizer") == origin.identity.get("optimizer"))
    else:
        model.load_weights(commit.dense)
        if state := commit.training_state.get(LATE):
            tables.restore_late(LateGradient.of_bytes(state))
    lineage = LineageHead(current, replacing=bool(changed), migrating=bool(changed))
    dense = model.serving_bytes() if changed else served_dense_of(commit)
    price = Price() if changed else Price.of(commit.price)
    if stored is None:
        views = partial(_views_of, commit, config, names)
    else:
        views = partial(_stored_views, versions, commit, config, names)
    served = ServedState(views, dict(commit.next_handles), dense, price)
    progress = restore_progress(commit, config, model.item_inputs)
    if changed and config.gate:  # the past of another model is no past to compare with
        progress.gate = Gate(config.gate)
    return RestoredShard(tables, progress, lineage, served, stored)


def restore_tables(commit: Commit, config: Config, names: set[str], stored: RowReader | None = None) -> Tables:
    """Tables `names` as a version holds them; the other tables start empty.

    With `stored`, which reads that version, their rows are only on disk, and `commit` has none.
    """
    states = {}
    for name in names & set(commit.fields) & set(tables_of(config.fields)):
        change = commit.fields[name]
        admission, expiry = (commit.training_state[f"{part}.{name}"] for part in ("admission", "expiry"))
        states[name] = TableState(change.keys, change.rows, admission, expiry)
    return Tables(config, states, stored)


def restore_progress(commit: Commit, config: Config, item_inputs: Collection[str] = ()) -> TrainerProgress:
    """How far the shard had come; `item_inputs`: the Keras inputs that the item tower reads.

    The validation of a label that is new or has another loss starts empty, that on matured labels also after another
    window or horizon, that of lists after other settings, and so do the importance of a new input and the items of
    two towers with other settings.
    """
    progress = TrainerProgress.start(config, item_inputs)
    progress.position = SamplePosition(commit.offset, commit.row)
    progress.last_at_ms, progress.samples_seen = commit.last_at_ms, commit.samples_seen
    for label in config.outputs:
        if state := commit.training_state.get(f"validation.{label.name}"):
            validation = LabelValidation.from_bytes(state)
            if validation.loss == label.loss:
                progress.validations[label.name] = validation
        if state := commit.training_state.get(f"matured.{label.name}"):
            progress.matured[label.name].restore(state)
    for name, lists in progress.lists.items():
        if state := commit.training_state.get(f"lists.{name}"):
            lists.load(state)
    if state := commit.training_state.get(FIELD_IMPORTANCE):
        progress.importance.load(state)
    progress.loss = LossSum.of_bytes(commit.training_state.get(LOSS, LossSum().to_bytes()))
    if progress.items is not None and (state := commit.training_state.get(ITEM_SOURCE)):
        progress.items.load(state)
    if progress.gate is not None and (state := commit.training_state.get(GATE)):
        progress.gate.load(state)
    return progress


def _empty_views(config: Config) -> dict[str, ServedView]:
    """By table, a view for a publisher, which assigns handles and seldom looks one up."""
    return {name: ServedView(table.dim, by_handle=False) for name, table in tables_of(config.fields).items()}


def _views_of(commit: Commit, config: Config, names: set[str]) -> dict[str, ServedView]:
    """The served views of the tables `names` of a complete version; those of the other tables are empty."""
    views = _empty_views(config)
    return views | {name: ServedView.of(commit.fields[name]) for name in names & set(commit.fields) & set(views)}


def _stored_views(versions: VersionStore, commit: Commit, config: Config, names: set[str]) -> dict[str, ServedView]:
    """The same of the version that `commit` is an outline of. Raises as `VersionStore.restore`."""
    views = _empty_views(config)

    def put(name: str, part: ServedEntries) -> None:
        views[name].put(part.keys, part.handles, part.bits, part.payload)

    versions.each_served(commit.id, names & set(commit.fields) & set(views), put)
    return views


def _check_log(config: Config, origin: VersionOrigin, commit: Commit) -> None:
    if commit.log_id != origin.log_id:
        raise LogReplacedError(
            f"topic {config.topics.samples} has id {origin.log_id}, version {commit.id} was trained from "
            f"{commit.log_id}. hint: the topic was deleted and created again; roll back or start a new state folder"
        )


def refuse_changed(commit: Commit, identity: Identity) -> None:
    """Raise MigrationError if a version was trained under another configuration or model than `identity`."""
    before = identity_in(commit)
    if changed := differences(before, identity):
        kept = ", ".join(sorted(unchanged_tables(before, identity) & set(commit.fields))) or "none"
        raise MigrationError(
            f"version {commit.id} was trained under another configuration or model: {'; '.join(changed)}. "
            f"hint: pass --migrate (tables that keep their rows: {kept}; others start empty, dropped ones "
            "are removed), or undo the change"
        )
