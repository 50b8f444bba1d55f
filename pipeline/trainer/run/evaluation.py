"""The newest samples of the log, scored by CURRENT: read-only, beside a running trainer.

Features, pooling and network are those of training; rows are the trained ones, not the served ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipeline.arrays.ascending import find_keys
from pipeline.arrays.types import Float32s, Float64s, UInt64s
from pipeline.configuration.model.tables import TableConfig, tables_of
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.features.plan import FeaturePlan, Features
from pipeline.features.pooled_rows import write_pooled_rows
from pipeline.importance.fields.estimate import Losses
from pipeline.importance.fields.footprint import TableSize
from pipeline.importance.fields.report import ScoredSamples
from pipeline.logs.events.sample_block import impression_times, sample_times
from pipeline.logs.interface.log import Log, records_backwards
from pipeline.model.dense import DenseModel
from pipeline.model.identity import identity_of
from pipeline.model.loss.targets import Targets, targets_of
from pipeline.quarantine.sample_mask import SampleMask
from pipeline.trainer.commit.boundary_snapshot import TrainerProgress
from pipeline.trainer.commit.restore import refuse_changed, restore_progress
from pipeline.trainer.tables.table import stored_rows
from pipeline.versions.deltas.rounding import RowRounding, as_read
from pipeline.versions.ledger.sample_records import SampleRecords
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store.version_store import VersionStore

_AT_ONCE = 8_192
"""Samples in one call of the network."""


@dataclass(frozen=True)
class NewestSamples:
    """n samples of one shard.

    Attributes:
        samples: as in the log, oldest first.
        learned: how many of them the version has learned from.
    """

    samples: pa.RecordBatch
    learned: int


@dataclass(frozen=True)
class SamplesByRows:
    """n samples of one shard, which rows of choice score.

    Attributes:
        commit: the version.
        learned: how many of the samples the version has learned from.
        trained: by table, its rows as training reads them [rows, dim] float32, by key.
        score: by table such rows → the loss of each sample [n] and the outputs of the network [n, labels]; valid until
            the next version is read.
    """

    commit: Commit
    learned: int
    trained: Mapping[str, Float32s]
    score: Callable[[Mapping[str, Float32s]], tuple[Float64s, Float32s]]


def evaluate_shards(project: Project, log: Log, ids: Sequence[VersionId], count: int) -> Iterator[ScoredSamples]:
    """The newest samples of the shards of some versions, at most `count` of each, one shard after the other.

    Raises as `Evaluation`.
    """
    with closing(VersionStore(project, log)) as versions:
        evaluation = Evaluation(project, log, versions)
        for id in ids:
            yield evaluation.score(id, count)


class Evaluation:
    """The network of a project, for the versions of all its shards. Not thread-safe."""

    def __init__(self, project: Project, log: Log, versions: VersionStore) -> None:
        """Build features and network. Raises ConfigError and ModelError."""
        self._project, self._config, self._log, self._versions = project, project.config, log, versions
        self._plan, self._model = FeaturePlan(self._config, project.root), DenseModel(self._config, project.root)
        self._identity = identity_of(self._config, self._plan, self._model)

    def score(self, id: VersionId, count: int) -> ScoredSamples:
        """The newest samples of the version's shard, at most `count`, none of them in quarantine.

        Raises:
            MigrationError: configuration or model changed since the version.
            InputError: the log holds fewer than two samples, or none of them observes a label.
            RecordError: a record cannot be read.
        """
        commit, newest, features = self._read(id, count)
        inputs = self._inputs(features, commit, self._trained_rows(commit))
        progress = restore_progress(commit, self._config, self._model.item_inputs)
        losses = self._losses(self._targets(newest, progress), id)
        keys = {name: found.keys for name, found in features.keys.items()}
        sizes = {name: _size_of(commit, name) for name in tables_of(self._config.fields)}
        return ScoredSamples(inputs, losses, keys, sizes, newest.learned, progress.importance)

    def by_rows(self, id: VersionId, count: int) -> SamplesByRows:
        """The same samples, to be scored by other rows than the trained ones. Raises as `score`."""
        commit, newest, features = self._read(id, count)
        progress = restore_progress(commit, self._config, self._model.item_inputs)
        losses = self._losses(self._targets(newest, progress), id)

        def score(rows: Mapping[str, Float32s]) -> tuple[Float64s, Float32s]:
            inputs = self._inputs(features, commit, rows)
            starts = range(0, len(inputs), _AT_ONCE)
            return losses(inputs), np.concatenate([self._model.outputs(inputs[s : s + _AT_ONCE]) for s in starts])

        return SamplesByRows(commit, newest.learned, self._trained_rows(commit), score)

    def _read(self, id: VersionId, count: int) -> tuple[Commit, NewestSamples, Features]:
        """A version, whose dense weights are loaded, and its newest samples."""
        commit = self._versions.restore(id)
        refuse_changed(commit, self._identity)
        newest = self._newest(commit, count)
        features = self._plan.extract(newest.samples, impression_times(newest.samples))
        self._model.load_serving(commit.dense)
        return commit, newest, features

    def _targets(self, newest: NewestSamples, progress: TrainerProgress) -> Targets:
        targets = targets_of(newest.samples, self._config.outputs)
        if progress.items is None:
            return targets
        items = progress.items.unlearned(newest.samples, impression_times(newest.samples))
        return replace(targets, batch_items=items)

    def _trained_rows(self, commit: Commit) -> dict[str, Float32s]:
        return {name: _weights_of(commit, table) for name, table in tables_of(self._config.fields).items()}

    def _newest(self, commit: Commit, count: int) -> NewestSamples:
        shard, topic = commit.id.shard, self._config.topics.samples
        records, quarantines = SampleRecords(self._project, self._log, shard), self._versions.ledger.quarantines
        mask = SampleMask.of(self._project, quarantines.active(shard))
        parts, missing, learned = list[pa.RecordBatch](), count, 0
        for record, block in records.decode_all(records_backwards(self._log, topic, shard)):
            if not missing:
                break
            excluded = mask.excluded(block.batch, sample_times(block.batch), record.offset)
            rows = np.flatnonzero(~excluded)[-missing:]
            parts.append(block.batch.take(pa.array(rows)))
            missing -= len(rows)
            learned += sum((record.offset, int(row)) < (commit.offset, commit.row) for row in rows)
        if count - missing < 2:
            raise InputError(
                f"topic {topic} holds {count - missing} samples of shard {shard} not in quarantine, wanted at least 2. "
                "run: springtide run samples --until-end"
            )
        # Samples from before a label was declared lack its column.
        tables = [pa.Table.from_batches([part]) for part in reversed(parts)]
        whole = pa.concat_tables(tables, promote_options="default").combine_chunks()
        return NewestSamples(whole.to_batches()[0], learned)

    def _inputs(self, features: Features, commit: Commit, rows: Mapping[str, Float32s]) -> Float32s:
        """[n, columns] as the network reads them; `rows`: by table [rows, dim], in the order of the version's keys."""
        layout = self._model.layout

        def lookup(table: str, keys: UInt64s) -> Float32s:
            return _looked_up(commit.fields[table].keys, rows[table], keys)

        inputs = np.empty((len(features.dense), layout.columns), np.float32)
        write_pooled_rows(self._config.fields, features.keys, lookup, layout.starts, inputs)
        inputs[:, layout.dense_start :] = features.dense
        self._model.scale(inputs)
        return inputs

    def _losses(self, targets: Targets, id: VersionId) -> Losses:
        """The losses of the samples: their mean is the sum over labels of the label's weight times its mean loss."""
        weights = (targets.scored_positive + targets.scored_negative).sum(axis=0, dtype=np.float64)
        if not (weights > 0).any():
            raise InputError(f"none of the newest {len(targets)} samples of {id} observes a label. hint: --samples")
        of_labels = np.array([label.weight for label in self._config.outputs])
        # A softmax over a batch is compared for as many items as training has.
        at_once = _AT_ONCE if targets.batch_items is None else self._config.model.batch_size
        scale = np.divide(of_labels * len(targets), weights, out=np.zeros_like(weights), where=weights > 0)

        def losses(inputs: Float32s) -> Float64s:
            found = [
                self._model.losses(inputs[start : start + at_once], targets.part(start, start + at_once))
                for start in range(0, len(inputs), at_once)
            ]
            scaled: Float64s = np.concatenate(found).astype(np.float64) @ scale
            return scaled

        return losses


def _weights_of(commit: Commit, table: TableConfig) -> Float32s:
    """[rows, dim] the weights of a table's rows as training reads them, by key."""
    change = commit.fields[table.name]
    return np.ascontiguousarray(as_read(stored_rows(change.rows, table), RowRounding.of(table)))


def _looked_up(known: UInt64s, rows: Float32s, keys: UInt64s) -> Float32s:
    """[m, dim] the rows of keys [m]; zeros for a key that is not among the ascending `known` [rows]."""
    found = np.zeros((len(keys), rows.shape[1]), np.float32)
    places, resident = find_keys(keys, known)
    found[resident] = rows[places[resident]]
    return found


def _size_of(commit: Commit, table: str) -> TableSize:
    change = commit.fields[table]
    return TableSize(len(change.keys), change.rows.nbytes, len(change.served_payload))
