"""One field of the feature plan: its columns, transform and seed, and the readable values of its keys."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import ARROW_TYPES
from pipeline.arrays.keys import combine_keys, hash_bytes, hash_column
from pipeline.arrays.types import Float32s, Int64s, UInt64s
from pipeline.configuration.model.fields import FieldConfig
from pipeline.errors import InputError, ModelError, UserCodeError
from pipeline.features import transforms
from pipeline.features.user_code import UserFunction, failing_row, load_function, summary_of
from pipeline.features.weights import NO_WEIGHTS, WeightsError, element_weights

MISSING = "(missing)"
_KINDS = {"uint": "int", "strings": "string", "ints": "int", "uints": "int", "floats": "float"}
"""By type of a column, the type with the same keys for the same elements."""
TRANSFORMS = ("value", "cross", "bucket", "log2", "hour", "weekday")


def column_of(batch: pa.RecordBatch, name: str, types: Mapping[str, str], at_ms: Int64s) -> pa.Array:
    """A raw column as its declared type; nulls if the batch has no such column; `at` is the impression's time in ms.

    Raises InputError if the values do not fit the type.
    """
    if name == "at":
        return pa.array(at_ms, pa.int64())
    wanted = ARROW_TYPES[types[name]]
    index = batch.schema.get_field_index(name)
    if index < 0:  # written before the column was declared
        return pa.nulls(batch.num_rows, wanted)
    column = batch.column(index)
    if column.type == wanted:
        return column
    try:
        return transforms.normalise(column).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(f"column {name} is {column.type}, the configuration declares {types[name]}") from None


class FieldPlan:
    """Computes one field's keys. Thread-safe if the user's function is."""

    def __init__(self, config: FieldConfig, types: Mapping[str, str], root: Path) -> None:
        self.columns = config.columns
        self._config, self._types = config, types
        self._kind = "cross" if config.transform == "value" and len(config.columns) > 1 else config.transform
        self.seed = hash_bytes(config.table_name.encode(), 0)
        self._function: UserFunction | None = None
        if ":" in config.transform:
            self._function = load_function(root, config.transform)
        self.problems = [f"field {config.name}: {problem}" for problem in self._find_problems()]

    @property
    def read(self) -> tuple[str, ...]:
        """Every raw column that is read."""
        return self.columns if self._config.weights is None else (*self.columns, self._config.weights)

    def keys(self, batch: pa.RecordBatch, at_ms: Int64s) -> tuple[UInt64s, Int64s]:
        """Keys [m] and offsets [n + 1] of a batch of n rows."""
        if self._kind == "cross":
            parts = [hash_column(column, self.seed) for column in self._inputs(batch, at_ms)]
            return combine_keys(parts, self.seed), transforms.one_each(batch.num_rows)
        elements, offsets = self._elements(batch, at_ms)
        return hash_column(elements, self.seed), offsets

    def weights(self, batch: pa.RecordBatch, at_ms: Int64s, offsets: Int64s) -> Float32s:
        """[m] one weight for each key, or none without a column of weights. Raises WeightsError."""
        name = self._config.weights
        if name is None:
            return NO_WEIGHTS
        try:
            return element_weights(column_of(batch, name, self._types, at_ms), np.diff(offsets))
        except WeightsError as failure:
            raise WeightsError(f"column {name}, weights of {self._config.name}: {failure}", failure.row) from None

    def texts(self, batch: pa.RecordBatch, at_ms: Int64s, places: Int64s) -> pa.StringArray:
        """[k] readable values of the keys at `places`."""
        index = pa.array(places)
        if self._kind == "cross":
            columns = [_texts(column.take(index)) for column in self._inputs(batch, at_ms)]
            return pc.binary_join_element_wise(*columns, " × ")
        elements, _ = self._elements(batch, at_ms)
        if self._kind in ("bucket", "log2", "weekday"):
            return pa.array([self._text_of(value) for value in elements.take(index).to_pylist()], pa.string())
        return _texts(elements.take(index))

    def clock_value(self, text: str | None) -> int | None:
        """The hour or weekday that an operator wrote directly; None for every other field or text."""
        if self._kind == "hour" and text and text.isdecimal() and int(text) < 24:
            return int(text)
        if self._kind == "weekday" and text and text.capitalize() in transforms.WEEKDAYS:
            return transforms.WEEKDAYS.index(text.capitalize())
        return None

    def identity(self) -> str:
        """A text that changes with everything that this field's keys depend on."""
        types = [self._types.get(name, "time") for name in self.columns]
        source = self._function.source_digest if self._function else None
        parts: list[Any] = [self._kind, list(self.columns), types, list(self._config.boundaries), source]
        if self._config.pooling == "none":
            parts.append({"max_length": self._config.max_length, "keep": self._config.keep})
        if self._config.weights is not None:
            parts.append({"weights": [self._config.weights, self._types[self._config.weights]]})
        return json.dumps(parts if self._config.table_name == self._config.name else [*parts, self._config.table_name])

    def values_kind(self) -> str | None:
        """What the values are that are hashed; None if a user's function computes them.

        Equal kinds: the same value has the same key. Numbers of different kinds could have the same key by accident.
        """
        if self._function:
            return None
        types = [self._types.get(name, "int") for name in self.columns]
        kinds = [_KINDS.get(each, each) for each in types]
        if self._kind == "bucket":
            return f"buckets of {', '.join(f'{each:g}' for each in self._config.boundaries)}"
        if self._kind == "cross":
            return f"crosses of {' × '.join(kinds)}"
        return kinds[0] if self._kind == "value" else f"{self._kind} of a number"

    def _inputs(self, batch: pa.RecordBatch, at_ms: Int64s) -> list[pa.Array]:
        return [column_of(batch, name, self._types, at_ms) for name in self.columns]

    def _elements(self, batch: pa.RecordBatch, at_ms: Int64s) -> tuple[pa.Array, Int64s]:
        """What is hashed, [m], and offsets [n + 1]: without the elements that the model does not read."""
        elements, offsets = transforms.flatten(self._values(batch, at_ms))
        if self._config.max_length is None:
            return elements, offsets
        return transforms.truncate(elements, offsets, self._config.max_length, self._config.keep)

    def _values(self, batch: pa.RecordBatch, at_ms: Int64s) -> pa.Array:
        """[n] what is hashed."""
        if self._kind == "hour":
            return transforms.hour(at_ms)
        if self._kind == "weekday":
            return transforms.weekday(at_ms)
        inputs = self._inputs(batch, at_ms)
        if self._function:
            return self._call_user(self._function, inputs, at_ms)
        if self._kind == "bucket":
            return transforms.bucket(inputs[0], self._config.boundaries)
        return transforms.log2(inputs[0]) if self._kind == "log2" else inputs[0]

    def _call_user(self, function: UserFunction, inputs: list[pa.Array], at_ms: Int64s) -> pa.Array:
        name = f"field {self._config.name}: {function.reference}"
        try:
            result = function.call(*inputs, at_ms)
        except (Exception, SystemExit) as failure:
            row = failing_row(len(at_ms), lambda rows: function.call(*(column[rows] for column in inputs), at_ms[rows]))
            raise UserCodeError(f"{name} failed: {summary_of(failure)}", row) from failure
        if isinstance(result, pa.ChunkedArray):
            result = result.combine_chunks()
        wanted = "wanted an arrow array of string, int, float or bool, or of lists of these"
        if not isinstance(result, pa.Array):
            raise ModelError(f"{name} returned {type(result).__name__}, {wanted}")
        if len(result) != len(at_ms):
            raise ModelError(f"{name} returned {len(result)} values for {len(at_ms)} rows, wanted one for each")
        try:
            return transforms.normalise(result)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise ModelError(f"{name} returned {result.type}, {wanted}") from None

    def _text_of(self, value: object) -> str:
        if isinstance(value, int) and self._kind == "bucket":
            return transforms.bucket_text(value, self._config.boundaries)
        if isinstance(value, int) and self._kind == "log2":
            return transforms.log2_text(value)
        if isinstance(value, int):
            return transforms.WEEKDAYS[value]
        return MISSING

    def _find_problems(self) -> list[str]:
        if self._function:
            return []
        if self._kind not in TRANSFORMS:
            return [f"transform {self._kind} is unknown. known: {', '.join(TRANSFORMS)}, module:function"]
        kinds = {name: self._types.get(name, "int") for name in self.columns}
        if self._kind == "cross":
            return self._problems_of_cross(kinds)
        if len(self.columns) > 1:
            return [f"{self._kind} reads one column, got {', '.join(self.columns)}"]
        if self._kind in ("hour", "weekday") and self.columns != ("at",):
            return [f"{self._kind} reads the column at, got {self.columns[0]}"]
        if self._kind in ("bucket", "log2"):
            return self._problems_of_numbers(kinds)
        return []

    def _problems_of_cross(self, kinds: dict[str, str]) -> list[str]:
        if len(kinds) < 2:
            return [f"cross needs two or more different columns, got {', '.join(self.columns)}"]
        return [f"cross reads single values, {name} is {kind}" for name, kind in kinds.items() if kind.endswith("s")]

    def _problems_of_numbers(self, kinds: dict[str, str]) -> list[str]:
        numeric = ("int", "uint", "float", "bool", "ints", "uints", "floats")
        problems = [f"{self._kind} needs numbers, {n} is {kind}" for n, kind in kinds.items() if kind not in numeric]
        boundaries = self._config.boundaries
        if self._kind == "bucket" and (not boundaries or list(boundaries) != sorted(set(boundaries))):
            problems.append(f"bucket needs ascending boundaries, got {list(boundaries)}")
        return problems


def _texts(values: pa.Array) -> pa.StringArray:
    """[n] readable values; Arrow writes those of the most frequent types, a batch at a time."""
    if pa.types.is_string(values.type) or pa.types.is_integer(values.type):
        return values.cast(pa.string()).fill_null(MISSING)
    return pa.array([MISSING if value is None else str(value) for value in values.to_pylist()], pa.string())
