"""Tables of rows: those declared as `[[tables]]`, which fields name, and those that fields have of their own."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.configuration.model.fields import (
    Adagrad,
    Admission,
    Expiry,
    FieldConfig,
    Importance,
    Optimizer,
    Quantise,
    problems_of_quantise,
)
from pipeline.configuration.section import Name, Section, declared_twice

ROW_SETTINGS = ("dim", "init_scale", "quantise", "quantise_below", "optimizer", "admission", "expiry")
"""Settings of a table; a field with a table of its own sets them itself."""


class TableConfig(Section):
    """`[[tables]]`: rows that several fields may read. A field without `table` has a table of its own.

    A row takes one step of the optimizer per batch, by the sum of the gradients of all fields. Admission counts the
    occurrences of a key in all fields, and a key was seen if any field has seen it.
    """

    name: Name
    """Name that fields give as `table`; it seeds the hash of the keys."""
    dim: Annotated[int, Field(ge=1, le=1024)] = 16
    """Weights per row."""
    init_scale: Annotated[float, Field(ge=0, le=100)] = 0.01
    """New weights are uniform in ± this; they depend on the key and the seed only."""
    quantise: Quantise | None = None
    """Rows are trained for so many bits, as with `quantise` of `[[fields]]`."""
    quantise_below: Importance | None = None
    """Only rows whose importance is below this are rounded."""
    optimizer: Optimizer = Adagrad()
    admission: Admission = Admission()
    expiry: Expiry = Expiry()

    @model_validator(mode="after")
    def _check_quantise(self) -> Self:
        if problems := problems_of_quantise(self.quantise, self.quantise_below):
            raise ValueError("; ".join(problems))
        return self


def with_row_settings(fields: Sequence[FieldConfig], tables: Sequence[TableConfig]) -> tuple[FieldConfig, ...]:
    """The fields, each with the row settings of the table it names.

    Raises ValueError for tables that are unused, unknown or ambiguous, and for a field that contradicts its table.
    """
    problems = [*_problems_of_names(fields, tables)]
    declared, resolved = {table.name: table for table in tables}, []
    for field in fields:
        table = None if field.table is None else declared.get(field.table)
        if table is None:
            resolved.append(field)
            continue
        settings = {name: getattr(table, name) for name in ROW_SETTINGS}
        problems += [
            f"field {field.name} sets {name}, which its table {table.name} has otherwise. "
            f"hint: remove it, or set it in [[tables]]"
            for name in ROW_SETTINGS
            if name in field.model_fields_set and getattr(field, name) != settings[name]
        ]
        resolved.append(field.model_copy(update=settings))
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(resolved)


def tables_of(fields: Sequence[FieldConfig]) -> dict[str, TableConfig]:
    """By name, every table that fields read, in the order of the first field that reads it.

    >>> item = FieldConfig(name="item", columns=("item",), dim=8)
    >>> [(table.name, table.dim) for table in tables_of([item]).values()]
    [('item', 8)]
    """
    tables: dict[str, TableConfig] = {}
    for field in fields:
        settings = {name: getattr(field, name) for name in ROW_SETTINGS}
        tables.setdefault(field.table_name, TableConfig(name=field.table_name, **settings))
    return tables


def fields_by_table(fields: Sequence[FieldConfig]) -> dict[str, tuple[str, ...]]:
    """By table, in the order of `tables_of`, the names of the fields that read it."""
    return {table: tuple(f.name for f in fields if f.table_name == table) for table in tables_of(fields)}


def _problems_of_names(fields: Sequence[FieldConfig], tables: Sequence[TableConfig]) -> list[str]:
    names = [table.name for table in tables]
    used = {field.table for field in fields}
    known = f"known: {', '.join(names)}" if names else "hint: declare it in [[tables]]"
    return [
        *declared_twice("table", names),
        *(
            f"field {field.name} names table {field.table}, which does not exist. {known}"
            for field in fields
            if field.table is not None and field.table not in names
        ),
        *(
            f'table {name} is read by no field. hint: remove it, or write table = "{name}" in a field'
            for name in dict.fromkeys(names)
            if name not in used
        ),
        *(
            f"table {field.name} has the name of a field with a table of its own. "
            f'hint: rename it, or write table = "{field.name}" in that field'
            for field in fields
            if field.table is None and field.name in names
        ),
    ]
