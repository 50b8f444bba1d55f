"""The ledger: which versions exist, which one is CURRENT, who may move it, and what every rollback must preserve.

It is a topic of the log (`topic.py`). CURRENT of a shard moves by one record under the fence of its writer, so a writer
that was fenced, even one that paused in between, cannot move it; a rollback moves CURRENT of all shards by one record.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pipeline.errors import ConfigError, FencedError, RollbackError, VersionError
from pipeline.logs.interface.log import Log
from pipeline.process.clock import Clock
from pipeline.versions.ledger.backup import LedgerBackup
from pipeline.versions.ledger.change_files import ChangeFile, ChangeFiles
from pipeline.versions.ledger.common_state import CommonState
from pipeline.versions.ledger.halt_table import HaltTable
from pipeline.versions.ledger.published_table import PublishedTable
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.ledger.quarantine_table import QuarantineTable
from pipeline.versions.ledger.records import Committed, Dropped, Merged, Opened, Pinned, RollbackUpdated, Touched
from pipeline.versions.ledger.rollback_record import RollbackRecord
from pipeline.versions.ledger.shard_view import ShardView
from pipeline.versions.ledger.staged_version import StagedVersion
from pipeline.versions.ledger.topic import LedgerTopic
from pipeline.versions.state import VersionId, VersionSummary


class Ledger:
    """Thread-safe, and safe with other processes.

    Methods raise LogError if the log is not available, DamagedError if a record is not one of a ledger.

    Attributes:
        published: which versions were published as files.
        quarantines: what training must not read.
        halts: which shards bad data has stopped.
    """

    def __init__(
        self, log: Log, topic: str, shards: int, clock: Clock, model: str, backup: LedgerBackup | None = None
    ) -> None:
        """The ledger of `model` in the topic `topic` of the log, which stays open. Writers give a `backup`."""
        self._topic, self._clock = LedgerTopic(log, topic, shards, backup), clock
        self._name, self._model = topic, model
        self.published = PublishedTable(self._topic, clock)
        self.quarantines = QuarantineTable(self._topic, clock)
        self.halts = HaltTable(self._topic, clock)

    def refuse_lost_records(self) -> None:
        """Raise DamagedError if the backup holds more than the topic."""
        self._topic.refuse_lost_records()

    # Writers and CURRENT.

    def raise_epoch(self, shard: int) -> int:
        """Become the shard's only writer: every earlier epoch is fenced from now on. Returns the new epoch.

        Raises RollbackError while a rollback is unfinished: training must not continue from a state that is being
        undone; ConfigError if the ledger is that of another model.
        """
        with self._topic.reading(shard) as (of_shard, state):  # before it fences a writer
            if of_shard.model not in ("", self._model):
                raise ConfigError(
                    f"the ledger in topic {self._name} is that of model {of_shard.model}, name is {self._model}. "
                    "hint: set topics.ledger, topics.deltas and topics.notices for a second model on the same samples"
                )
            _require_no_planned(state)
        epoch = self._acquire(shard)
        with self._topic.reading_common() as state:
            _require_no_planned(state)
        return epoch

    def epoch(self, shard: int) -> int:
        """The latest epoch; 0 if the shard never had a writer."""
        with self._topic.reading(shard) as (state, _):
            return state.epoch

    def current(self, shard: int) -> VersionId | None:
        """The version training continues from; None before the first."""
        with self._topic.reading(shard) as states:
            return ShardView(shard, *states).current

    def shards(self) -> list[int]:
        """Shards that have a CURRENT, ascending."""
        return [shard for shard in range(self._topic.shards) if self.current(shard) is not None]

    def generation(self) -> int:
        """The generation of new versions: 0, plus one for each rollback."""
        with self._topic.reading_common() as state:
            return state.generation

    def commit(self, staged: StagedVersion) -> None:
        """Record a version and move CURRENT to it, atomically.

        Raises FencedError if the epoch is not the latest or CURRENT is not the version's parent.
        """
        commit, shard = staged.commit, staged.commit.id.shard
        with self._topic.reading(shard) as (state, common):
            if commit.id.generation != common.generation:
                raise FencedError(
                    f"version {commit.id} is of an earlier generation, the latest is {common.generation}. "
                    "hint: the model was rolled back; restart this trainer"
                )
            if commit.epoch != state.epoch or not self._topic.holds(shard):
                raise fenced_by_epoch(commit.id, commit.epoch, state.epoch)
            version = self._summary(ShardView(shard, state, common), staged, commit.parent)
            try:
                self._topic.append(shard, Committed(version=version))
            except FencedError:
                raise fenced_by_epoch(commit.id, commit.epoch, self.epoch(shard)) from None

    def adopt(self, staged: StagedVersion) -> None:
        """Record a version that was committed after the backup which this ledger was restored from.

        Raises FencedError if CURRENT is not its parent.
        """
        shard = staged.commit.id.shard
        self._topic.acquire(shard)
        with self._topic.reading(shard) as (state, common):
            version = self._summary(ShardView(shard, state, common), staged, staged.commit.parent)
            epoch = max(state.epoch, staged.commit.epoch)
            self._topic.append(shard, Opened(epoch=epoch, shards=self._topic.shards, model=self._model))
            self._topic.append(shard, Committed(version=version))

    # Versions.

    def version(self, id: VersionId) -> VersionSummary:
        """The summary of one version. Raises VersionError if it does not exist or was dropped."""
        with self._viewing(id) as view:
            return _known(view, id)

    def versions(self, shard: int) -> list[VersionSummary]:
        """All retained versions of a shard, undone ones included, by generation and sequence."""
        with self._topic.reading(shard) as states:
            return ShardView(shard, *states).versions()

    def lineage(self, shard: int) -> list[VersionSummary]:
        """The versions CURRENT descends from, CURRENT last: the possible targets of a rollback."""
        with self._topic.reading(shard) as states:
            return ShardView(shard, *states).lineage()

    def retains_all(self, after: int, upto: VersionId) -> bool:
        """Whether each version of the generation of `upto` after the sequence `after`, up to `upto`, is retained."""
        with self._topic.reading(upto.shard) as states:
            view = ShardView(upto.shard, *states)
            return all(view.version(replace(upto, sequence=n)) for n in range(upto.sequence, after, -1))

    def change_files(self, shard: int) -> ChangeFiles:
        """The files that the shard's versions are restored from."""
        with self._topic.reading(shard) as states:
            return ShardView(shard, *states).change_files()

    def chain(self, id: VersionId) -> list[ChangeFile]:
        """The files that restoring `id` reads, oldest first. Raises VersionError, DamagedError."""
        with self._viewing(id) as view:
            _known(view, id)
            return view.change_files().chain(id)

    def merged(self, file: ChangeFile) -> None:
        """Record a merged file of a shard that this process writes. Raises FencedError."""
        self._topic.append(file.upto.shard, Merged(file=file))

    def between(self, after: VersionId, upto: VersionId) -> list[VersionSummary]:
        """The versions after `after` up to and including `upto`. Raises VersionError if `upto` does not descend."""
        found: list[VersionSummary] = []
        with self._topic.reading(upto.shard) as states:
            view, at = ShardView(upto.shard, *states), upto
            while at != after:
                version = view.version(at)
                if version is None or version.parent is None:
                    raise VersionError(f"version {upto} does not descend from {after}. run: springtide versions")
                found.append(version)
                at = version.parent
        return found[::-1]

    def pin(self, id: VersionId, pinned: bool = True) -> None:
        """Exempt a version from retention, or end that. Raises VersionError if it does not exist."""
        self._topic.append_common(lambda _: Pinned(version=self.version(id).id, pinned=pinned))

    def protected(self, shard: int) -> set[VersionId]:
        """Versions retention must not change: CURRENT, pinned, published, or part of an unfinished rollback."""
        with self._topic.reading(shard) as states:
            return ShardView(shard, *states).protected()

    def unneeded_files(self, shard: int) -> list[str]:
        """The paths of the files from which none of the shard's versions is restored. Raises DamagedError."""
        with self._topic.reading(shard) as states:
            view = ShardView(shard, *states)
            return _unneeded(view, [version.id for version in view.versions()])

    def drop(self, shard: int, versions: Sequence[VersionId], touched: Mapping[VersionId, tuple[str, str]]) -> None:
        """Record what retention did: children of dropped versions get the nearest retained ancestor.

        Args:
            shard: one that this process writes; its files of changes that no version needs any more are dropped, too.
            versions: versions to delete.
            touched: file of the keys touched between a retained version's new parent and itself: its path, its digest.
        """
        with self._topic.reading(shard) as states:
            view = ShardView(shard, *states)
            retained = [version.id for version in view.versions() if version.id not in set(versions)]
            files = tuple(Touched(version=id, path=path, digest=digest) for id, (path, digest) in touched.items())
            record = Dropped(versions=tuple(versions), files=tuple(_unneeded(view, retained)), touched=files)
            self._topic.append(shard, record)

    # Rollbacks.

    def begin_rollback(
        self, targets: Mapping[int, VersionId], quarantine: Quarantine, document: Mapping[str, object]
    ) -> RollbackRecord:
        """Record the plan, which raises the generation and adds the quarantine; then fence every trainer.

        Raises RollbackError if another rollback is unfinished, or CURRENT does not descend from a target.
        """
        for shard, target in targets.items():
            self._current_above(shard, target)
        planned: list[RollbackRecord] = []

        def plan(state: CommonState) -> RollbackUpdated:
            _require_no_planned(state)
            added, id = self.quarantines.numbered(state, quarantine), max(state.rollbacks, default=0) + 1
            planned.append(
                RollbackRecord(
                    id, state.generation + 1, "planned", dict(targets), {}, {}, added.id, dict(document), {},
                    self._clock.now_ms(),
                )
            )  # fmt: skip
            return RollbackUpdated(record=planned[-1], quarantine=added)

        self._topic.append_common(plan)
        return self.fence_rollback(planned[-1])

    def fence_rollback(self, record: RollbackRecord) -> RollbackRecord:
        """Fence the trainers of a planned rollback, unless it was done; returns it with CURRENT of each shard.

        Raises RollbackError if a target was dropped meanwhile: the rollback is abandoned and nothing has changed.
        """
        if record.epochs or record.state != "planned":
            return record
        epochs = {shard: self._acquire(shard) for shard in record.targets}
        try:
            currents = {shard: self._current_above(shard, target) for shard, target in record.targets.items()}
        except RollbackError:
            self._update(replace(record, state="abandoned"))
            self.quarantines.remove(record.quarantine)
            raise
        fenced = replace(record, currents=currents, epochs=epochs)
        self._update(fenced)
        return fenced

    def switch_rollback(
        self, record: RollbackRecord, staged: Sequence[StagedVersion], audit: Mapping[str, object]
    ) -> None:
        """Move every shard's CURRENT to its new generation, atomically. A second call changes nothing."""
        restored = []
        for version in staged:
            shard = version.commit.id.shard
            with self._topic.reading(shard) as states:
                restored.append(self._summary(ShardView(shard, *states), version, record.currents[shard]))
        switched = replace(record, state="switched", audit=dict(audit))
        self._update(switched, "planned", tuple(restored))

    def finish_rollback(self, record: RollbackRecord, audit: Mapping[str, object]) -> None:
        """Record that the rollback was announced: nothing of it is left to do."""
        self._update(replace(record, state="done", audit=dict(audit)))

    def rollbacks(self) -> list[RollbackRecord]:
        """Every rollback, by id: the audit."""
        with self._topic.reading_common() as state:
            return sorted(state.rollbacks.values(), key=lambda record: record.id)

    def unfinished_rollbacks(self) -> list[RollbackRecord]:
        """Rollbacks that are not done."""
        return [record for record in self.rollbacks() if record.state in ("planned", "switched")]

    @contextmanager
    def _viewing(self, id: VersionId) -> Iterator[ShardView]:
        """The shard of a version at one moment. Raises VersionError if the ledger has no such shard."""
        if id.shards != self._topic.shards or id.shard >= id.shards:
            raise _unknown(id)
        with self._topic.reading(id.shard) as states:
            yield ShardView(id.shard, *states)

    def _update(
        self, record: RollbackRecord, only_if: str | None = None, restored: tuple[VersionSummary, ...] = ()
    ) -> None:
        """Replace the record of a rollback; with `only_if`, if it is in this state."""

        def decide(state: CommonState) -> RollbackUpdated | None:
            if only_if is not None and state.rollbacks[record.id].state != only_if:
                return None
            return RollbackUpdated(record=record, restored=restored)

        self._topic.append_common(decide)

    def _acquire(self, shard: int) -> int:
        """Fence the shard's writer; versions that a rollback restored become the shard's own. Returns the epoch."""
        self._topic.acquire(shard)
        with self._topic.reading(shard) as (state, common):
            restored = ShardView(shard, state, common).restored
            opened = Opened(
                epoch=state.epoch + 1,
                shards=self._topic.shards,
                model=self._model,
                restored=() if restored is None else (restored,),
            )
            self._topic.append(shard, opened)
            return opened.epoch

    def _summary(self, view: ShardView, staged: StagedVersion, expected: VersionId | None) -> VersionSummary:
        """What is recorded of a version that follows CURRENT. Raises FencedError if CURRENT is not `expected`."""
        commit, current = staged.commit, view.current
        if current != expected:
            raise FencedError(f"version {commit.id} follows {expected}, CURRENT is {current}. hint: stop this trainer")
        last_at_ms, parent = commit.last_at_ms, view.version(commit.parent) if commit.parent else None
        if parent is not None:
            last_at_ms = max(last_at_ms, parent.last_at_ms)
        return staged.summary(last_at_ms, self._clock.now_ms())

    def _current_above(self, shard: int, target: VersionId) -> VersionId:
        with self._topic.reading(shard) as states:
            view = ShardView(shard, *states)
            current, retained = view.current, view.version(target) is not None
            if current and retained and target.sequence <= view.last_sequences().get(target.generation, -1):
                return current
        raise RollbackError(f"CURRENT {current} does not descend from version {target}. hint: plan the rollback again")


def fenced_by_epoch(id: VersionId, epoch: int, latest: int) -> FencedError:
    """The error for a version whose writer's epoch is not the latest."""
    return FencedError(
        f"version {id} comes from epoch {epoch}, shard {id.shard} is at epoch {latest}. "
        "hint: another trainer writes the shard; stop this one"
    )


def _unneeded(view: ShardView, retained: Sequence[VersionId]) -> list[str]:
    return [file.path for file in view.change_files().unneeded(retained)]


def _require_no_planned(state: CommonState) -> None:
    if state.planned is not None:
        raise RollbackError(f"rollback {state.planned.id} is unfinished. run: springtide rollback --finish")


def _known(view: ShardView, id: VersionId) -> VersionSummary:
    """The summary of a version. Raises VersionError if it does not exist or was dropped."""
    found = view.version(id)
    if found is None:
        raise _unknown(id)
    return found


def _unknown(id: VersionId) -> VersionError:
    return VersionError(f"version {id} does not exist. run: springtide versions")
