"""Which samples quarantines exclude: their ranges, and the conditions and sets of keys that narrow them.

Training, the scoring of the newest samples and the plan of a rollback use the same mask. It reads columns of samples
only, so a replay excludes the same samples whatever features and model are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa

from pipeline.arrays.types import Bools, Int64s
from pipeline.configuration.config import Config
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.logs.events.sample_block import sample_schema
from pipeline.process.crash_point import reach_crash_point
from pipeline.quarantine.key_set import KeySet
from pipeline.quarantine.predicate import Predicate
from pipeline.versions.ledger.quarantine import Quarantine, Quarantines, Selection


@dataclass(frozen=True)
class Choice:
    """A selection that is ready to choose samples: those that fulfil the predicate and have a key, as far as given."""

    predicate: Predicate | None
    keys: KeySet | None

    @classmethod
    def read(cls, config: Config, where: str | None, keys: tuple[str, Path] | None) -> Self | None:
        """The choice of an operator: a condition, a field with a file of keys, both; None without any.

        Raises InputError, see `Predicate` and `KeySet.read`.
        """
        if where is None and keys is None:
            return None
        predicate = None if where is None else Predicate(where, sample_schema(config))
        return cls(predicate, None if keys is None else KeySet.read(config, *keys))

    @classmethod
    def stored(cls, project: Project, selection: Selection) -> Self:
        """The choice of a selection in the ledger. Raises InputError if it does not fit the configuration any more,
        DamagedError if its set of keys is missing or damaged.
        """
        where, keys = selection.where, selection.keys
        predicate = None if where is None else Predicate(where, sample_schema(project.config))
        return cls(predicate, None if keys is None else KeySet.stored(project, keys))

    @cached_property
    def selection(self) -> Selection:
        """What the ledger stores of it."""
        return Selection(self.predicate.text if self.predicate else None, self.keys.name() if self.keys else None)

    def store(self, project: Project) -> None:
        """Make the set of keys durable; call it before the ledger names it. Raises VersionError."""
        if self.keys is not None:
            self.keys.store(project)
            reach_crash_point("quarantine.after_keys")

    def matches(self, samples: pa.RecordBatch) -> Bools:
        """[n] which samples it chooses. Raises InputError if a column has another type in them."""
        parts = [part.matches(samples) for part in (self.predicate, self.keys) if part is not None]
        return parts[0] if len(parts) == 1 else parts[0] & parts[1]


@dataclass(frozen=True)
class SampleMask:
    """Quarantines with what they need to read samples. Immutable; thread-safe."""

    quarantines: Quarantines
    choices: Mapping[int, Choice]
    """By id of a quarantine."""

    @classmethod
    def of(cls, project: Project, quarantines: Quarantines, before: Self | None = None) -> Self:
        """The mask of the quarantines in force for a shard. What the mask `before` has read is not read again.

        Raises InputError and DamagedError as `Choice.stored`; they name the quarantine.
        """
        known = before.choices if before else {}
        selective = [entry for entry in quarantines.entries if entry.selection is not None]
        return cls(quarantines, {entry.id: known.get(entry.id) or _stored(project, entry) for entry in selective})

    @classmethod
    def planned(cls, quarantine: Quarantine, choice: Choice) -> Self:
        """The mask of a quarantine that is not in the ledger."""
        return cls(Quarantines([replace(quarantine, selection=choice.selection)]), {quarantine.id: choice})

    def excluded(self, samples: pa.RecordBatch, at_ms: Int64s, offset: int) -> Bools:
        """Which samples of one record are in quarantine: [n] bool.

        Args:
            samples: all samples of the record.
            at_ms: [n] their times, the later of impression and click.
            offset: the record's offset in the samples log.

        Raises InputError if a column has another type in the samples.
        """
        return self.quarantines.mask(at_ms, offset, chosen=lambda entry: self.choices[entry.id].matches(samples))


def _stored(project: Project, entry: Quarantine) -> Choice:
    assert entry.selection is not None
    try:
        return Choice.stored(project, entry.selection)
    except InputError as failure:
        raise InputError(
            f"quarantine {entry.id} cannot be applied: {failure}; or run: springtide quarantine remove {entry.id}"
        ) from None
