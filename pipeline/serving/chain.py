"""One shard's chain as serving holds it: decides whether a delta fits, and applies it whole or not at all.

A delta is verified before anything changes: what its rows and tombstones would do to the served digest is worked out
before a reader can see any of them. Not thread-safe; the replica holds its lock while `switch` runs.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from pipeline.arrays.block import UInt64s
from pipeline.errors import DeltaError, InputError
from pipeline.versions.deltas.delta import Delta, FieldDelta, served_digest
from pipeline.versions.deltas.served_view import ServedView

_REMEMBERED_NAMES = 4_096

Span = tuple[str, int, int, int]


class Fit(Enum):
    """What a delta is to a chain."""

    APPLY = "apply"
    SKIP = "skip"
    """Already applied, or covered by something that was."""
    GAP = "gap"
    """Something before it is missing."""


@dataclass
class _FieldStep:
    """What applying does to one field, worked out before: a whole new view, or rows and removals for the old one."""

    view: ServedView
    digest: int
    keys: UInt64s
    change: FieldDelta | None = None

    def switch(self) -> ServedView:
        """The field's view from now on."""
        if self.change is not None:
            handles = np.concatenate([self.change.handles, self.change.new_handles])
            self.view.remove(self.change.removed)
            self.view.put(self.keys, handles, self.change.bits, self.change.payload)
        return self.view


@dataclass
class Step:
    """A verified step: `switch` carries it out."""

    delta: Delta
    name: str
    fields: dict[str, _FieldStep] = field(default_factory=dict)


class Chain:
    """What serving holds of one shard, starting from nothing (version 0 of generation 0)."""

    def __init__(self, shard: int, shards: int, dims: Mapping[str, int], model_digest: str | None = None) -> None:
        """An empty chain.

        Args:
            shard: which shard.
            shards: of how many.
            dims: by field, weights per row.
            model_digest: refuse deltas of a model with another digest; None takes any.
        """
        self.shard, self.shards = shard, shards
        self.generation, self.sequence = 0, 0
        self.last_at_ms: int | None = None
        self.dense = b""
        self.model: Mapping[str, str] = {}
        self.views = {name: ServedView(dim) for name, dim in dims.items()}
        self._model_digest = model_digest
        self._digest = served_digest({name: view.digest() for name, view in self.views.items()}, b"")
        self._names: OrderedDict[Span, str] = OrderedDict()

    def __str__(self) -> str:
        return f"g{self.generation}/s{self.shard}-of-{self.shards}/{self.sequence}"

    @property
    def digest(self) -> str:
        """The served digest of what is held, as the last delta was verified to give."""
        return self._digest

    def scan_digest(self) -> str:
        """The same, worked out from the views again."""
        return served_digest({name: view.digest() for name, view in self.views.items()}, self.dense)

    def fit(self, delta: Delta, name: str) -> Fit:
        """Whether `delta`, named `name`, follows what is held. Raises DeltaError for one that never will."""
        self._refuse_foreign(delta)
        if delta.generation < self.generation:
            raise DeltaError(f"{delta} is of an older generation than version {self}. hint: a rollback left it behind")
        if delta.generation == self.generation and delta.to_sequence <= self.sequence:
            return self._fit_again(delta, name)
        if delta.level == "full":
            return Fit.APPLY
        if delta.base_generation != self.generation or delta.from_sequence > self.sequence:
            return Fit.GAP
        if delta.level == "realtime" and delta.from_sequence < self.sequence:
            raise DeltaError(f"{delta} overlaps version {self}. hint: its writer lost its place; restart the trainer")
        if delta.before is not None and delta.from_sequence == self.sequence and delta.before != self.digest:
            raise DeltaError(
                f"{delta} starts from served digest {delta.before[:12]}, version {self} has {self.digest[:12]}. "
                "hint: another trainer wrote it"
            )
        return Fit.APPLY

    def verify(self, delta: Delta, name: str) -> Step:
        """Work out what a fitting delta does. Raises DeltaError where it names an unknown row or misses its digest."""
        step = Step(delta, name)
        full = delta.level == "full"
        for field_name, view in self.views.items():
            change = delta.fields.get(field_name, FieldDelta.empty(view.dim))
            what = f"{delta}, {field_name}"
            step.fields[field_name] = _whole_step(change, what) if full else _field_step(view, change, what)
        got = served_digest({n: s.digest for n, s in step.fields.items()}, delta.dense)
        if got != delta.after:
            raise DeltaError(
                f"{delta} would lead to served digest {got[:12]}, it says {delta.after[:12]}. "
                f"hint: it does not belong on version {self}"
            )
        return step

    def switch(self, step: Step, load_dense: Callable[[bytes], None]) -> None:
        """Carry a step out; readers are kept out by the caller.

        `load_dense` gets the new dense weights first: where it raises, nothing has changed.
        """
        delta = step.delta
        load_dense(delta.dense)
        for name, one in step.fields.items():
            self.views[name] = one.switch()
        self.dense, self.model, self._digest = delta.dense, delta.model, delta.after
        self.generation, self.sequence, self.last_at_ms = delta.generation, delta.to_sequence, delta.last_at_ms
        self._names[_span(delta)] = step.name
        while len(self._names) > _REMEMBERED_NAMES:
            self._names.popitem(last=False)

    def _fit_again(self, delta: Delta, name: str) -> Fit:
        """A delta that leads no further than what is held: fine, unless it contradicts it."""
        known = self._names.get(_span(delta), name)
        if known != name:
            raise DeltaError(
                f"{delta} is named {name[:12]}, the one applied was {known[:12]}. "
                "hint: two trainers wrote this shard; run: springtide versions"
            )
        if delta.to_sequence == self.sequence and delta.after != self.digest:
            raise DeltaError(
                f"{delta} leads to served digest {delta.after[:12]}, version {self} has {self.digest[:12]}. "
                "hint: two trainers wrote this shard; run: springtide versions"
            )
        return Fit.SKIP

    def _refuse_foreign(self, delta: Delta) -> None:
        if (delta.shard, delta.shards) != (self.shard, self.shards):
            raise DeltaError(f"{delta} is foreign: this chain is shard {self.shard} of {self.shards}")
        digest = delta.model.get("digest")
        if self._model_digest is not None and digest != self._model_digest:
            raise DeltaError(
                f"{delta} is of model {(digest or 'without a digest')[:12]}, this replica serves "
                f"{self._model_digest[:12]}. hint: give the replica the trainer's configuration"
            )
        for name, change in delta.fields.items():
            if name not in self.views:
                raise DeltaError(f"{delta} has field {name}, the configuration has {', '.join(sorted(self.views))}")
            if change.dim != self.views[name].dim:
                raise DeltaError(
                    f"{delta} has dim {change.dim} in {name}, the configuration has {self.views[name].dim}"
                )


def _span(delta: Delta) -> Span:
    """What a delta is known by: a second one of the same span must be the same delta."""
    return delta.level, delta.generation, delta.from_sequence, delta.to_sequence


def _field_step(view: ServedView, change: FieldDelta, what: str) -> _FieldStep:
    """Resolve handles and work out the digest after. Raises DeltaError."""
    known, there = view.keys_of(change.handles)
    if not there.all():
        missing = change.handles[~there]
        raise DeltaError(f"{what}: {len(missing)} handles are unknown here, the first is {missing[0]}")
    taken, there = view.keys_of(change.new_handles)
    clash = there & (taken != change.new_keys) & ~np.isin(taken, change.removed)
    if clash.any():
        raise DeltaError(
            f"{what}: {int(clash.sum())} new keys have handles in use, the first is {change.new_handles[clash][0]}"
        )
    keys = np.concatenate([known, change.new_keys])
    handles = np.concatenate([change.handles, change.new_handles])
    try:
        digest = view.digest_after(keys, handles, change.bits, change.payload, change.removed)
    except InputError as failure:
        raise DeltaError(f"{what}: {failure}") from None
    return _FieldStep(view, digest, keys, change)


def _whole_step(change: FieldDelta, what: str) -> _FieldStep:
    """A full's rows as a view of their own, made while readers use the old one. Raises DeltaError."""
    if len(change.handles):
        raise DeltaError(
            f"{what}: a full has {len(change.handles)} rows without keys. run: springtide publish --level full"
        )
    view = ServedView(change.dim)
    try:
        view.put(change.new_keys, change.new_handles, change.bits, change.payload)
    except InputError as failure:
        raise DeltaError(f"{what}: {failure}") from None
    return _FieldStep(view, view.digest(), change.new_keys)
