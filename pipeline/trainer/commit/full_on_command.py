"""A full snapshot on an operator's command: by the running trainer, or here if none runs.

A full carries every row. What CURRENT withholds is sent first, by versions that learn nothing: serving follows their
deltas, and a replica that starts from the full holds the same bytes. So is what the gate holds.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from pipeline.arrays.types import UInt64s
from pipeline.configuration.model.tables import TableConfig, tables_of
from pipeline.configuration.project import Project
from pipeline.errors import MigrationError, VersionError
from pipeline.logs.interface.log import Log
from pipeline.model.identity import table_settings
from pipeline.model.network.weights import served_part
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.publish.hooks.notices import Hooks
from pipeline.publish.levels.full_request import FullRequest, TrainerLock
from pipeline.publish.levels.level_publisher import LevelPublisher
from pipeline.publish.levels.part import Part
from pipeline.publish.price.byte_price import Price
from pipeline.publish.publisher import PreparedUpdate, Publisher, PublishSettings, VersionRange
from pipeline.trainer.commit.lineage import identity_in
from pipeline.trainer.tables.table import Rows, stored_row_bytes, stored_rows
from pipeline.trainer.validation.gate.gate import GATE, state_in
from pipeline.versions.deltas.delta import Delta, decode_delta, served_dense_of
from pipeline.versions.deltas.published_files import DeltaManifest, read_delta_manifest
from pipeline.versions.deltas.rounding import RowRounding
from pipeline.versions.deltas.served_view import ServedView
from pipeline.versions.quality import Quality
from pipeline.versions.state import Commit, FieldChange
from pipeline.versions.store.version_store import VersionStore

_POLL_S = 0.2
_WAIT_S = 120.0


@dataclass(frozen=True)
class _StoredRows:
    """The rows of a table in a version, as the publisher reads them."""

    all_keys: UInt64s
    all_rows: Rows
    rounding: RowRounding | None

    def keys(self) -> UInt64s:
        return self.all_keys

    def rows(self, keys: UInt64s) -> Rows:
        return self.all_rows[np.searchsorted(self.all_keys, keys)]


def publish_full(
    project: Project, log: Log, versions: VersionStore, shard: int, part: Part | None = None
) -> DeltaManifest:
    """Publish every row of a shard, or of one part of it, as a full snapshot, at CURRENT or a version after it.

    A running trainer publishes the whole model, from whose file the part is then cut.

    Raises:
        VersionError: the shard has no version, or a running trainer has not published within two minutes.
        MigrationError: the configuration has changed since CURRENT.
        RollbackError: a rollback is unfinished.
    """
    with TrainerLock(project, shard) as lock:
        if not lock.acquire_alone():
            whole = _by_trainer(project, versions, shard)
            if part is None:
                return whole
            with closing(Hooks(project, log)) as hooks:
                return LevelPublisher(project, versions, hooks, shard, part).publish_part_of(whole)
        if part is None:
            FullRequest(project, shard).remove()
        with closing(Hooks(project, log)) as hooks:
            levels = LevelPublisher(project, versions, hooks, shard, part)
            _send_withheld(project, log, versions, shard, levels)
            manifest = levels.publish_full()
    if manifest is None:
        raise VersionError(f"shard {shard} has no version yet. run: springtide run train --until-end")
    return manifest


def _by_trainer(project: Project, versions: VersionStore, shard: int) -> DeltaManifest:
    """Request the full of the running trainer and wait for it."""
    request, waited_s = FullRequest(project, shard), 0.0
    request.make()
    while request.pending():
        if waited_s >= _WAIT_S:
            raise VersionError(
                f"the trainer of shard {shard} has not published a full within {_WAIT_S:g} s. "
                "hint: it will after its next commit; see springtide status"
            )
        project.clock.wait(_POLL_S)
        waited_s += _POLL_S
    published = versions.ledger.published.latest("full", shard)
    if published is None:
        raise VersionError(
            f"the full of shard {shard} was replaced by a rollback. run: springtide publish --level full"
        )
    return read_delta_manifest(project.published / f"{published.path.removesuffix('.delta')}.json")


def _send_withheld(project: Project, log: Log, versions: VersionStore, shard: int, levels: LevelPublisher) -> None:
    """Commit versions whose deltas send what CURRENT withholds; none if it withholds nothing."""
    current = versions.current(shard)
    if current is None:
        return
    commit = versions.restore(current)
    publisher = _publisher_of(project, commit)
    epoch, writer, complete, dense = 0, None, False, _dense_to_serve(commit)
    while not complete:
        before, served = decode_delta(commit.delta), publisher.served_dense
        prepared = publisher.prepare(_after(versions, shard, before, commit), {}, dense, flush=True)
        complete = prepared.complete
        if served == dense and not any(len(field.bits) for field in prepared.delta.fields.values()):
            return
        if writer is None:
            epoch, writer = versions.raise_epoch(shard), DeltaWriter(project, log, shard)
            writer.append_missing([commit.delta])
        commit = _commit_of(versions, commit, prepared, epoch)
        versions.commit(commit)
        writer.append(prepared.delta, prepared.encoded)
        levels.announce_realtime(prepared.delta, prepared.encoded)


def _dense_to_serve(commit: Commit) -> bytes:
    """The dense weights that serving holds; those of training, exactly, while the gate may hold them."""
    state = commit.training_state.get(GATE)
    healthy = state is None or state_in(state) == "healthy"
    return served_dense_of(commit) if healthy else served_part(commit.dense)


def _publisher_of(project: Project, commit: Commit) -> Publisher:
    config, tables, views = project.config, {}, {}
    declared = tables_of(config.fields)
    for name, change in commit.fields.items():
        table = declared.get(name)
        if table is None or not _as_declared(commit, table):
            raise MigrationError(
                f"table {name} of version {commit.id} is not as the configuration declares it. "
                "run: springtide run train --until-end --migrate"
            )
        tables[name] = _StoredRows(change.keys, stored_rows(change.rows, table), RowRounding.of(table))
        views[name] = ServedView.of(change)
    settings, price = PublishSettings.of(config), Price.of(commit.price)
    return Publisher(settings, tables, views, commit.next_handles, served_dense_of(commit), price)


def _as_declared(commit: Commit, table: TableConfig) -> bool:
    """Whether a version has the rows that the configuration declares, and they were trained for as many bits."""
    change, before = commit.fields[table.name], table_settings(identity_in(commit), table.name)
    stored = change.dim, change.rows.shape[1], before.get("quantise"), before.get("quantise_below")
    return stored == (table.dim, stored_row_bytes(table), table.quantise, table.quantise_below)


def _after(versions: VersionStore, shard: int, before: Delta, commit: Commit) -> VersionRange:
    """The step from a version to the one after it, which learns nothing."""
    id = versions.next_id(shard)
    return VersionRange(
        id.generation, shard, id.shards, before.to_sequence, id.sequence,
        commit.last_at_ms, commit.last_at_ms, before.model,
    )  # fmt: skip


def _commit_of(versions: VersionStore, before: Commit, prepared: PreparedUpdate, epoch: int) -> Commit:
    """The version after `before`: the same training state, with more rows served."""
    return replace(
        before,
        id=versions.next_id(before.id.shard),
        parent=before.id,
        epoch=epoch,
        first_at_ms=before.last_at_ms,
        fields=_changes(before.fields, prepared),
        quarantines_seen=versions.ledger.quarantines.active(before.id.shard).ids(),
        next_handles=prepared.next_handles,
        served_digest=prepared.served_digest,
        delta=prepared.encoded,
        served_dense=prepared.served_dense,
        price=prepared.price.numbers(),
        quality=_quality_after(before.quality, prepared),
        full=False,
    )


def _quality_after(before: Quality, prepared: PreparedUpdate) -> Quality:
    """Nothing is learned, so nothing is measured."""
    return Quality(prepared.price.predicted, withheld=dict(prepared.withheld), gate=before.gate)


def _changes(before: Mapping[str, FieldChange], prepared: PreparedUpdate) -> dict[str, FieldChange]:
    return {
        name: replace(
            FieldChange.empty(change.dim, change.rows.shape[1]),
            served_keys=prepared.fields[name].keys,
            served_handles=prepared.fields[name].handles,
            served_bits=prepared.fields[name].bits,
            served_payload=prepared.fields[name].payload,
            served_removed=prepared.fields[name].removed,
        )
        for name, change in before.items()
    }
