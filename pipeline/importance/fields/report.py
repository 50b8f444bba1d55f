"""Everything known about the importance of inputs: live, by permutation, as Shapley values, and what they take up."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from pipeline.arrays.types import Float32s, Float64s, UInt64s
from pipeline.importance.fields import permutation, shapley
from pipeline.importance.fields.estimate import Advance, Estimate, Losses
from pipeline.importance.fields.footprint import Footprint, TableSize, footprints
from pipeline.importance.fields.inputs import InputColumns
from pipeline.importance.fields.live import LiveImportance

Progress = Callable[[int, int], None]
"""(evaluations done, evaluations in total)"""


@dataclass(frozen=True)
class Method:
    """How much is measured.

    Attributes:
        samples: of each shard, at most.
        seed: of shuffles and orders.
        repeats: shuffles of each input.
        orders: random orders for each sample.
    """

    samples: int
    seed: int
    repeats: int = 5
    orders: int = 4

    def evaluations(self, columns: InputColumns) -> int:
        """How often the losses of a shard's samples are computed."""
        shuffled = permutation.evaluations(len(columns.names) + len(columns.shared), self.repeats)
        return shuffled + shapley.evaluations(len(columns.names), self.orders)


@dataclass(frozen=True)
class ScoredSamples:
    """n samples as a version of their shard sees them.

    Attributes:
        inputs: [n, columns] of the network.
        losses: of these samples for changed inputs; valid until the next shard is scored.
        keys: by field, the keys that it reads.
        sizes: by table.
        learned: how many of the samples the version has learned from.
        live: the trainer's estimate.
    """

    inputs: Float32s
    losses: Losses
    keys: Mapping[str, UInt64s]
    sizes: Mapping[str, TableSize]
    learned: int
    live: LiveImportance


@dataclass(frozen=True)
class InputReport:
    """One field or dense input.

    Attributes:
        name: of the input.
        table: that a field reads; None for a dense input.
        live: None before the trainer has counted a sample.
        permutation: rise of the loss when its values are shuffled.
        shapley: its share of what all inputs take away from the loss.
        footprint: of a field.
    """

    name: str
    table: str | None
    live: Estimate | None
    permutation: Estimate
    shapley: Estimate
    footprint: Footprint | None


@dataclass(frozen=True)
class TableReport:
    """One table that several fields read; they are shuffled together."""

    name: str
    fields: tuple[str, ...]
    live: Estimate | None
    permutation: Estimate


@dataclass(frozen=True)
class FieldReport:
    """All inputs, in the order of the configuration.

    Attributes:
        samples: number of them, over all shards.
        learned: how many of them the versions have learned from.
        loss: their mean.
        inputs: fields, then dense inputs.
        tables: shared ones.
    """

    samples: int
    learned: int
    loss: float
    inputs: tuple[InputReport, ...]
    tables: tuple[TableReport, ...]


def report_fields(
    columns: InputColumns, shards: Iterable[ScoredSamples], method: Method, advance: Advance
) -> FieldReport:
    """Measure the inputs on the samples of one or more shards; values are shuffled within a shard."""
    scored, losses, rises, values = [], list[Float64s](), list[Float64s](), list[Float64s]()
    groups = [[part] for part in columns.slices]
    groups += [[columns.slices[i] for i in read] for read in columns.shared.values()]
    for shard in shards:
        scored.append(shard)
        losses.append(shard.losses(shard.inputs))
        work = shard.inputs, shard.losses
        rises.append(permutation.rise_when_shuffled(*work, groups, method.repeats, method.seed, advance))
        values.append(shapley.shapley_values(*work, columns.slices, method.orders, method.seed, advance))
    loss = np.concatenate(losses)
    rise = [Estimate.of(each) for each in np.concatenate(rises, axis=1)]
    taken = [Estimate.of(each) for each in np.concatenate(values, axis=1)]
    live, live_tables = (
        _mean([f(s.live) for s in scored]) for f in (LiveImportance.of_inputs, LiveImportance.of_tables)
    )
    taken_up, table_of = (
        _footprints(columns, scored),
        {columns.names[i]: t for t, read in columns.tables.items() for i in read},
    )
    inputs = [
        InputReport(name, table_of.get(name), live.get(name), rise[i], taken[i], taken_up.get(name))
        for i, name in enumerate(columns.names)
    ]
    tables = [
        TableReport(table, tuple(columns.names[i] for i in read), live_tables.get(table), rise[place])
        for place, (table, read) in zip(count(len(inputs)), columns.shared.items(), strict=False)
    ]
    learned = sum(shard.learned for shard in scored)
    return FieldReport(len(loss), learned, float(loss.mean()), tuple(inputs), tuple(tables))


def _footprints(columns: InputColumns, scored: Sequence[ScoredSamples]) -> dict[str, Footprint]:
    """Of the fields, over all shards."""
    keys = {name: np.concatenate([shard.keys[name] for shard in scored]) for name in scored[0].keys}
    tables = {table: [columns.names[i] for i in read] for table, read in columns.tables.items()}
    sizes = {table: sum((shard.sizes[table] for shard in scored), TableSize(0, 0, 0)) for table in tables}
    return footprints(keys, tables, sizes)


def _mean(of_shards: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """By name, the mean over the shards that have an estimate, which are independent."""
    by_name: dict[str, list[Estimate]] = {}
    for estimates in of_shards:
        for name, estimate in estimates.items():
            by_name.setdefault(name, []).append(estimate)
    return {name: Estimate.mean_of(found) for name, found in by_name.items()}
