"""The feature plan: from raw columns to keys per field and dense numbers, by the same code in training and serving.

Keys are seeded by the name of the table: the same value has the same key in the fields of one table, and different keys
in two tables; the order of fields does not matter. A null value has the table's fixed "missing" key; a null or empty
list has no key.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.arrays.keys import hash_column
from pipeline.arrays.types import Float32s, Int64s, UInt64s
from pipeline.configuration.config import Config
from pipeline.configuration.model.tables import fields_by_table
from pipeline.errors import ConfigError, InputError
from pipeline.features.dense import SizeError, check_sizes, dense_numbers, out_of_range
from pipeline.features.field import FieldPlan, column_of
from pipeline.features.instances import batch_of, check_finite, instance_of_texts
from pipeline.features.weights import no_weights


@dataclass(frozen=True)
class FieldKeys:
    """One field's keys of n rows: row i has `keys[offsets[i]:offsets[i + 1]]`."""

    keys: UInt64s
    """[m]"""
    offsets: Int64s
    """[n + 1]"""
    weights: Float32s = field(default_factory=no_weights)
    """[m], or none."""


@dataclass(frozen=True)
class Features:
    """The model's features of n rows."""

    keys: dict[str, FieldKeys]
    """By field, in the order of the configuration."""
    dense: Float32s
    """[n, dense columns]; null is 0."""

    @classmethod
    def concatenated(cls, parts: Sequence["Features"]) -> "Features":
        """The features of the rows of all `parts`, at least one, in order."""
        if len(parts) == 1:
            return parts[0]
        keys = {name: _concatenated([part.keys[name] for part in parts]) for name in parts[0].keys}
        return cls(keys, np.concatenate([part.dense for part in parts]))

    def take(self, rows: Int64s) -> "Features":
        """The features of `rows` ([k] int64, places in 0..n-1), in their order."""
        return Features({name: _taken(keys, rows) for name, keys in self.keys.items()}, self.dense[rows])


class FeaturePlan:
    """Turns raw columns into keys, as configured. Thread-safe if the user's functions are."""

    def __init__(self, config: Config, root: Path) -> None:
        """Load the user's functions from folder `root`. Raises ConfigError and ModelError."""
        self._types = dict(config.events.impressions.columns)
        self._fields = {field.name: FieldPlan(field, self._types, root) for field in config.fields}
        self.fields_by_table = fields_by_table(config.fields)
        """By table, in the order of `tables_of`, the names of the fields that read it."""
        self._dense = config.dense
        problems = [p for field in self._fields.values() for p in field.problems]
        problems += [p for table, names in self.fields_by_table.items() for p in self._table_problems(table, names)]
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def columns(self) -> tuple[str, ...]:
        """Raw columns that are read, except `at`, in the order of the configuration."""
        columns = [c for field in self._fields.values() for c in field.read] + [d.column for d in self._dense]
        return tuple(name for name in dict.fromkeys(columns) if name != "at")

    def extract(self, batch: pa.RecordBatch, at_ms: Int64s) -> Features:
        """Keys and dense numbers of a batch of n rows.

        Args:
            batch: raw impression columns; a declared column that is missing is null, other columns are ignored.
            at_ms: [n] int64, each impression's time.

        Raises:
            InputError: a column cannot be read as the type it is declared with; SizeError for a vector of another size,
                WeightsError for weights that do not fit their elements.
            ModelError: a user's function failed or did not return one value or list per row.
        """
        assert len(at_ms) == batch.num_rows, f"{len(at_ms)} times for {batch.num_rows} rows"
        keys = {name: _keys_of(field, batch, at_ms) for name, field in self._fields.items()}
        none = np.zeros((batch.num_rows, 0), np.float32)
        numbers = [dense_numbers(d, column_of(batch, d.column, self._types, at_ms)) for d in self._dense]
        return Features(keys, np.concatenate([none, *numbers], axis=1))

    def batch_of(self, instances: Sequence[Any], now_ms: int, first: int = 0) -> tuple[pa.RecordBatch, Int64s]:
        """Raw columns and times of JSON instances, for serving; see `instances.batch_of`.

        Raises InputError, also for a number that is not finite.
        """
        batch, at_ms = batch_of(instances, self._types, now_ms, first)
        check_finite(batch, first)
        for number in self._dense:
            column = column_of(batch, number.column, self._types, at_ms)
            wrong = np.flatnonzero(out_of_range(number, column))
            if len(wrong):
                try:
                    check_sizes(number, column)
                except SizeError as failure:
                    raise InputError(f"instance {first + failure.row}, {failure}") from None
                low, high = number.range or (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))
                value, place = column[int(wrong[0])].as_py(), first + int(wrong[0])
                raise InputError(f"instance {place}, column {number.column}: got {value}, wanted {low:g} to {high:g}")
        return batch, at_ms

    def key_of(self, field: str, values: Mapping[str, str]) -> int:
        """The key of one value, written by an operator.

        Args:
            field: the field's name.
            values: text per column of the field, of a list column one element; a missing column is null. `hour` and
                `weekday` also accept their results: `{"at": "13"}`, `{"at": "Mon"}`.

        Raises InputError for an unknown field or column, a text that does not parse, a value that has not one key.
        """
        plan = self._field(field)
        unread = [name for name in values if name not in plan.columns]
        if unread:
            raise InputError(
                f"field {field} does not read {', '.join(unread)}. hint: it reads {', '.join(plan.columns)}"
            )
        clock_value = plan.clock_value(values.get("at"))
        if clock_value is not None:
            return int(hash_column(pa.array([clock_value], pa.int64()), plan.seed)[0])
        batch, at_ms = batch_of([instance_of_texts(values, self._types)], self._types, 0)
        keys, _ = plan.keys(batch, at_ms)
        if len(keys) != 1:
            raise InputError(f"{dict(values)} has {len(keys)} keys in field {field}, wanted one")
        return int(keys[0])

    def describe(self, field: str, batch: pa.RecordBatch, at_ms: Int64s, places: Int64s) -> pa.StringArray:
        """[k] readable values of keys, for the operator's dictionary.

        Args:
            field: the field's name.
            batch: the batch that `extract` read.
            at_ms: its times, [n] int64.
            places: [k] indices into that field's `FieldKeys.keys`.
        """
        return self._field(field).texts(batch, at_ms, places)

    def identities(self) -> dict[str, str]:
        """By input, a text that identifies how its keys or numbers are computed: equal texts, equal features."""
        identities = {name: plan.identity() for name, plan in self._fields.items()}
        for number in self._dense:
            kind = self._types.get(number.column)
            settings = number.model_dump(mode="json", include={"size", "normalise", "clip"}, exclude_defaults=True)
            more = [settings] if settings else []
            identities[number.name] = json.dumps(
                ["dense", number.column, kind, number.transform, *more], sort_keys=True
            )
        return identities

    def _table_problems(self, table: str, names: Sequence[str]) -> list[str]:
        """Fields of one table must hash values of one kind; what a user's function returns is not known here."""
        kinds = {name: kind for name in names if (kind := self._fields[name].values_kind())}
        if len(set(kinds.values())) <= 1:
            return []
        listed = ", ".join(f"{name} reads {kind}" for name, kind in kinds.items())
        return [f"fields of table {table} read different values: {listed}. hint: use a table for each kind"]

    def _field(self, name: str) -> FieldPlan:
        if name not in self._fields:
            raise InputError(f"field {name} does not exist. known: {', '.join(self._fields)}")
        return self._fields[name]


def _keys_of(field: FieldPlan, batch: pa.RecordBatch, at_ms: Int64s) -> FieldKeys:
    keys, offsets = field.keys(batch, at_ms)
    return FieldKeys(keys, offsets, field.weights(batch, at_ms, offsets))


def _taken(field: FieldKeys, rows: Int64s) -> FieldKeys:
    starts, lengths = field.offsets[rows], field.offsets[rows + 1] - field.offsets[rows]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    places = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    return FieldKeys(field.keys[places], offsets, field.weights[places] if len(field.weights) else field.weights)


def _concatenated(parts: Sequence[FieldKeys]) -> FieldKeys:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    weights = np.concatenate([part.weights for part in parts])
    return FieldKeys(np.concatenate([part.keys for part in parts]), offsets, weights)
