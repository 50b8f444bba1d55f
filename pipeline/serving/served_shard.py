"""The served state of one shard: its version, its views and its dense weights.

A delta is applied in three calls: `check` (does it follow the served version), `stage` (verify it without changing
anything) and `switch` (apply it, completely or not at all). Not thread-safe: the caller keeps readers out of `switch`.

A shard may hold some of the tables. Of the others it holds the digest, which deltas carry, so that the served digest
still covers the complete version: a wrong row in a table that it holds changes it.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from enum import Enum

from pipeline.errors import DeltaError
from pipeline.model.network.served_weights import dense_after
from pipeline.serving.staged_delta import StagedDelta, stage_field, stage_full_field
from pipeline.versions.deltas.delta import Delta, FieldDelta, digest_of_digests, short_digest
from pipeline.versions.deltas.served_view import ServedView

_MAX_APPLIED_NAMES = 4_096

DeltaRange = tuple[str, int, int, int]
"""(level, generation, from sequence, to sequence): two deltas of the same range must be the same delta."""


class DeltaStatus(Enum):
    """How a delta relates to the served version."""

    APPLICABLE = "applicable"
    ALREADY_APPLIED = "already applied"
    """It was applied, or an applied delta covers it."""
    GAP = "gap"
    """A delta before it is missing."""


class ServedShard:
    """One shard as serving holds it; starts empty, at version 0 of generation 0."""

    def __init__(
        self,
        shard: int,
        shards: int,
        dims: Mapping[str, int],
        model_digest: str | None = None,
        held: Collection[str] | None = None,
        part: str | None = None,
    ) -> None:
        """Create an empty shard.

        Args:
            shard: index of the shard.
            shards: number of shards.
            dims: by table, weights per row.
            model_digest: deltas of a model with another digest are refused; None accepts any.
            held: the tables to hold, without dense weights, of which it holds what changes apply to; None holds all
                tables and dense weights.
            part: the part of the model whose files may be applied, besides those of the whole model.
        """
        self.shard, self.shards = shard, shards
        self.generation, self.sequence = 0, 0
        self.last_at_ms: int | None = None
        self._dense = b""
        self.model: Mapping[str, str] = {}
        self.views = {name: ServedView(dim) for name, dim in dims.items() if held is None or name in held}
        self._dims, self._holds_dense, self._model_digest, self.part = dims, held is None, model_digest, part
        self._other_digests = {name: 0 for name in dims if name not in self.views}
        self._dense_digest = short_digest(b"")
        self._digest = self.scan_digest()
        self._applied_names: OrderedDict[DeltaRange, str] = OrderedDict()

    def __str__(self) -> str:
        return f"g{self.generation}/s{self.shard}-of-{self.shards}/{self.sequence}"

    @property
    def dense(self) -> bytes:
        """The dense weights, if it holds all tables; they are those of the complete network."""
        return self._dense if self._holds_dense else b""

    @property
    def digest(self) -> str:
        """The served digest that the last delta was verified against."""
        return self._digest

    def scan_digest(self) -> str:
        """The served digest, recomputed from the views."""
        digests = self._other_digests | {name: view.digest() for name, view in self.views.items()}
        return digest_of_digests(digests, self._dense_digest)

    def check(self, delta: Delta, name: str) -> DeltaStatus:
        """Whether `delta`, with content name `name`, follows the served version.

        Raises DeltaError for a delta that can never be applied.
        """
        self._check_addressee(delta)
        if delta.generation < self.generation:
            raise DeltaError(f"{delta} is of an older generation than version {self}. hint: a rollback replaced it")
        if delta.generation == self.generation and delta.to_sequence <= self.sequence:
            self._check_consistent(delta, name)
            return DeltaStatus.ALREADY_APPLIED
        if delta.level == "full":
            return DeltaStatus.APPLICABLE
        if delta.base_generation != self.generation or delta.from_sequence > self.sequence:
            return DeltaStatus.GAP
        if delta.level == "realtime" and delta.from_sequence < self.sequence:
            raise DeltaError(f"{delta} overlaps version {self}. hint: its writer is out of sync; restart the trainer")
        if delta.before is not None and delta.from_sequence == self.sequence and delta.before != self.digest:
            raise DeltaError(
                f"{delta} starts from served digest {delta.before[:12]}, version {self} has {self.digest[:12]}. "
                "hint: another trainer wrote it"
            )
        return DeltaStatus.APPLICABLE

    def stage(self, delta: Delta, name: str) -> StagedDelta:
        """Verify an applicable delta; changes nothing.

        Raises DeltaError if it refers to an unknown row, changes other dense weights, or does not produce its digest.
        """
        fields, full = {}, delta.level == "full"
        for field_name, view in self.views.items():
            change = delta.fields.get(field_name, FieldDelta.empty(view.dim))
            context = f"{delta}, {field_name}"
            fields[field_name] = stage_full_field(change, context) if full else stage_field(view, change, context)
        others = {other: delta.digests.get(other, 0 if full else old) for other, old in self._other_digests.items()}
        digests = others | {table: field.digest for table, field in fields.items()}
        dense, dense_digest = self._dense, self._dense_digest
        if delta.dense_digest is not None:
            dense, dense_digest = dense_after(dense, delta.dense, delta.dense_digest)
        digest = digest_of_digests(digests, dense_digest)
        if digest != delta.after:
            raise DeltaError(
                f"{delta} would result in served digest {digest[:12]}, its header has {delta.after[:12]}. "
                f"hint: it does not belong on version {self}"
            )
        return StagedDelta(delta, name, fields, others, dense, dense_digest)

    def switch(self, staged: StagedDelta, load_dense: Callable[[bytes], None]) -> None:
        """Apply a staged delta; the caller keeps readers out.

        `load_dense` is called first, with the new dense weights: if it raises, nothing has changed.
        """
        delta = staged.delta
        load_dense(staged.dense)
        for name, field in staged.fields.items():
            self.views[name] = field.switch()
        self._other_digests, self._dense_digest = staged.other_digests, staged.dense_digest
        self._dense, self.model, self._digest = staged.dense, delta.model, delta.after
        self.generation, self.sequence, self.last_at_ms = delta.generation, delta.to_sequence, delta.last_at_ms
        self._applied_names[_range_of(delta)] = staged.name
        while len(self._applied_names) > _MAX_APPLIED_NAMES:
            self._applied_names.popitem(last=False)

    def _check_consistent(self, delta: Delta, name: str) -> None:
        """Raise DeltaError if a delta up to the served version at most contradicts what was applied."""
        applied = self._applied_names.get(_range_of(delta), name)
        if applied != name:
            raise DeltaError(
                f"{delta} is named {name[:12]}, the one applied was {applied[:12]}. "
                "hint: two trainers wrote this shard; run: springtide versions"
            )
        if delta.to_sequence == self.sequence and delta.after != self.digest:
            raise DeltaError(
                f"{delta} results in served digest {delta.after[:12]}, version {self} has {self.digest[:12]}. "
                "hint: two trainers wrote this shard; run: springtide versions"
            )

    def _check_addressee(self, delta: Delta) -> None:
        """Raise DeltaError for a delta of another shard, another model or other tables."""
        if (delta.shard, delta.shards) != (self.shard, self.shards):
            raise DeltaError(f"{delta} is foreign: this is shard {self.shard} of {self.shards}")
        digest = delta.model.get("digest")
        if self._model_digest is not None and digest != self._model_digest:
            raise DeltaError(
                f"{delta} is of model {(digest or 'without a digest')[:12]}, this replica serves "
                f"{self._model_digest[:12]}. hint: start the replica with the trainer's configuration"
            )
        if delta.part not in (None, self.part):
            serves = "the whole model" if self.part is None else f"part {self.part}"
            raise DeltaError(f"{delta} is of part {delta.part}, this replica serves {serves}. hint: serving.part")
        for name, change in delta.fields.items():
            if name not in self._dims:
                raise DeltaError(f"{delta} has field {name}, the configuration has {', '.join(sorted(self._dims))}")
            if change.dim != self._dims[name]:
                raise DeltaError(f"{delta} has dim {change.dim} in {name}, the configuration has {self._dims[name]}")


def _range_of(delta: Delta) -> DeltaRange:
    return delta.level, delta.generation, delta.from_sequence, delta.to_sequence
