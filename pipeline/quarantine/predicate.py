"""A condition over the samples of a project: its names and types are checked first, then Arrow evaluates it.

Nulls are those of SQL: a comparison with null is null, and a sample whose condition is null is not chosen.
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc

from pipeline.arrays.types import Bools
from pipeline.errors import InputError
from pipeline.process.clock import LATEST_MS
from pipeline.process.instant import parse_instant
from pipeline.quarantine.columns import sample_column
from pipeline.quarantine.where import (
    Among,
    Column,
    Compare,
    Every,
    Flag,
    IsNull,
    Like,
    Node,
    Not,
    Operand,
    Some,
    Value,
    parse_where,
    problem_at,
)

_TIMES = ("impression_at", "click_at", "observed_until")
"""Columns of milliseconds since 1970, which are compared with times in quotes."""
_OPERATORS: dict[str, Callable[[pc.Expression, pc.Expression], pc.Expression]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_SWAPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ROW = " row"
"""No column of samples has this name."""


class Predicate:
    """A condition whose columns and types fit the samples. Thread-safe."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        """Parse and check a condition over samples of `schema`.

        Raises InputError, which names the position: a token that does not fit, an unknown column, a column that is
        compared with a value of another type.
        """
        self.text, self._schema = text, schema
        binder = _Binder(text, schema)
        self._expression = binder.expression(parse_where(text))
        self.columns = tuple(binder.columns)
        """The columns that it reads."""

    def matches(self, samples: pa.RecordBatch) -> Bools:
        """[n] which samples the condition chooses. Raises InputError if a column has another type in these samples.

        >>> age = Predicate("age < 18", pa.schema([("age", pa.int64())]))
        >>> age.matches(pa.RecordBatch.from_pydict({"age": [17, 18, None]})).tolist()
        [True, False, False]
        """
        count = samples.num_rows
        columns = {name: sample_column(samples, self._schema.field(name)) for name in self.columns}
        table = pa.table({_ROW: pa.array(np.arange(count))} | columns)
        plan = acero.Declaration.from_sequence(
            [
                acero.Declaration("table_source", acero.TableSourceNodeOptions(table)),
                acero.Declaration("filter", acero.FilterNodeOptions(self._expression)),
                acero.Declaration("project", acero.ProjectNodeOptions([pc.field(_ROW)], [_ROW])),
            ]
        )
        chosen = np.zeros(count, np.bool_)
        chosen[plan.to_table(use_threads=False).column(_ROW).to_numpy()] = True
        return chosen


class _Binder:
    """Turns the tree of one condition into an Arrow expression; collects the columns that it reads."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._text, self._schema = text, schema
        self.columns: dict[str, None] = {}

    def expression(self, node: Node) -> pc.Expression:
        match node:
            case Every(parts):
                return _balanced(operator.and_, [self.expression(part) for part in parts])
            case Some(parts):
                return _balanced(operator.or_, [self.expression(part) for part in parts])
            case Not(part):
                return ~self.expression(part)
            case Compare():
                return self._compare(node)
            case Among():
                return self._among(node)
            case Like():
                return self._like(node)
            case IsNull(column, _):
                return pc.field(self._column(column).name).is_null()
            case Flag(column, at):
                found = self._column(column)
                if not pa.types.is_boolean(found.type):
                    raise self._problem(at, f"{_described(found)}, wanted a comparison")
                return pc.field(found.name)

    def _compare(self, node: Compare) -> pc.Expression:
        left, right, sign = node.left, node.right, node.operator
        if isinstance(left, Value):
            left, right, sign = right, left, _SWAPPED[sign]
        column = self._column(left)
        if isinstance(right, Column):
            other = self._column(right)
            if other.type != column.type or (other.name in _TIMES) != (column.name in _TIMES):
                raise self._problem(right.at, f"{_described(other)}, compared with {_described(column)}")
            compared = pc.field(other.name)
        else:
            compared = pc.scalar(self._scalar(column, right))
        if pa.types.is_boolean(column.type) and sign not in ("=", "!="):
            raise self._problem(node.at, f"{_described(column)}, wanted = or !=")
        return _OPERATORS[sign](pc.field(column.name), compared)

    def _among(self, node: Among) -> pc.Expression:
        column = self._column(node.column)
        values = []
        for value in node.values:
            scalar = self._scalar(column, value)
            if scalar.type != column.type:
                raise self._problem(value.at, f"{_described(column)}, wanted values of this type")
            values.append(scalar.as_py())
        found = pc.field(column.name)
        # Arrow finds null in no set, SQL does not know whether it is in it.
        unknown = pc.scalar(pa.scalar(None, pa.bool_()))
        return pc.if_else(found.is_valid(), found.isin(pa.array(values, column.type)), unknown)

    def _like(self, node: Like) -> pc.Expression:
        column = self._column(node.column)
        if not pa.types.is_string(column.type):
            raise self._problem(node.column.at, f"{_described(column)}, wanted a string for like")
        if not isinstance(node.pattern.value, str):
            raise self._problem(node.pattern.at, "wanted a text in quotes after like")
        return pc.match_like(pc.field(column.name), node.pattern.value)

    def _column(self, operand: Operand) -> pa.Field:
        """The field of a column. Raises InputError for a value, an unknown column and one of lists."""
        if isinstance(operand, Value):
            raise self._problem(operand.at, "wanted a column on one side")
        index = self._schema.get_field_index(operand.name)
        if index < 0:
            raise self._problem(
                operand.at, f"column {operand.name} does not exist, known: {', '.join(self._schema.names)}"
            )
        field = self._schema.field(index)
        if pa.types.is_nested(field.type):
            raise self._problem(operand.at, f"{_described(field)}, wanted one value per sample: use --keys for lists")
        self.columns[field.name] = None
        return field

    def _scalar(self, column: pa.Field, value: Operand) -> pa.Scalar:
        """The value as it is compared with the column. Raises InputError if their types differ."""
        if isinstance(value, Column):
            raise self._problem(value.at, "wanted a value")
        found = _converted(column, value.value)
        if isinstance(found, str):
            raise self._problem(value.at, f"{_described(column)}, {found}")
        return found

    def _problem(self, at: int, problem: str) -> InputError:
        return problem_at(self._text, at, problem)


def _converted(column: pa.Field, value: str | int | float | bool) -> pa.Scalar | str:
    """The value as an Arrow scalar, or why it cannot be compared with the column."""
    kind = column.type
    if column.name in _TIMES and isinstance(value, str):
        return _instant(value)
    if pa.types.is_string(kind):
        return pa.scalar(value, kind) if isinstance(value, str) else "wanted a text in quotes"
    if pa.types.is_boolean(kind):
        return pa.scalar(value, kind) if isinstance(value, bool) else "wanted true or false"
    if isinstance(value, str | bool):
        return "wanted a time in quotes" if column.name in _TIMES else "wanted a number"
    if pa.types.is_floating(kind):
        finite = abs(value) <= float(np.finfo(kind.to_pandas_dtype()).max)
        return pa.scalar(float(value), kind) if finite else f"whose numbers do not reach {value}"
    limits = np.iinfo(kind.to_pandas_dtype())
    if not (math.isfinite(value) and limits.min <= value <= limits.max):
        return f"which holds {limits.min} to {limits.max}"
    return pa.scalar(value, kind if isinstance(value, int) else pa.float64())


def _instant(text: str) -> pa.Scalar | str:
    try:
        at_ms = parse_instant(text)
    except ValueError:
        return "wanted a time such as '2026-01-31T14:00:00Z'"
    return pa.scalar(at_ms, pa.int64()) if 0 <= at_ms <= LATEST_MS else "wanted a time between 1970 and 9999"


def _described(column: pa.Field) -> str:
    return f"column {column.name} is {'a time' if column.name in _TIMES else column.type}"


def _balanced(
    join: Callable[[pc.Expression, pc.Expression], pc.Expression], parts: Sequence[pc.Expression]
) -> pc.Expression:
    """All parts joined: Arrow evaluates an expression recursively, and a list would be as deep as it is long."""
    if len(parts) <= 2:
        return reduce(join, parts)
    half = len(parts) // 2
    return join(_balanced(join, parts[:half]), _balanced(join, parts[half:]))
