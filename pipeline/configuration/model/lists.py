"""What a field needs of its columns to read lists: sequences for the model, and weights of elements."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pipeline.configuration.model.fields import FieldConfig


def mask_name(field: str) -> str:
    """The input of the Keras model that marks the elements of a field with pooling `none`."""
    return f"{field}_mask"


def list_problems(fields: Iterable[FieldConfig], inputs: Collection[str], types: Mapping[str, str]) -> list[str]:
    """The problems of fields with pooling `none` or weights.

    Args:
        fields: the fields.
        inputs: names of all inputs of the model.
        types: declared type by impression column.
    """
    problems = []
    for field in fields:
        if field.pooling == "none" and mask_name(field.name) in inputs:
            problems.append(
                f"input {mask_name(field.name)} has the name of the mask of field {field.name}. hint: rename it"
            )
        if field.pooling == "none" and not may_read_lists(field, types):
            problems.append(
                f"field {field.name} has pooling none and reads single values, wanted a list column. hint: leave "
                "pooling out"
            )
        if field.weights is not None:
            problems += _weights_problems(field, field.weights, types)
    return problems


def _weights_problems(field: FieldConfig, column: str, types: Mapping[str, str]) -> list[str]:
    name = f"field {field.name}: weights {column}"
    if column not in types:
        return [f"{name} is a column that impressions lack"]
    problems = []
    if types[column] not in ("floats", "ints", "uints"):
        problems.append(f"{name} is a column of type {types[column]}, wanted floats, ints or uints")
    if ":" in field.transform or not may_read_lists(field, types):
        problems.append(f"{name} needs one list column with transform value, bucket or log2: one weight per element")
    return problems


def empty_lists(row: Mapping[str, Any], fields: Iterable[FieldConfig], types: Mapping[str, str]) -> list[str]:
    """The list columns that fields read and that have no elements in `row`, values by column.

    >>> fields = [FieldConfig(name="history", columns=("seen",)), FieldConfig(name="user", columns=("user",))]
    >>> empty_lists({"seen": [], "user": 0}, fields, {"seen": "strings", "user": "int"})
    ['seen']
    """
    read = dict.fromkeys(column for field in fields for column in field.columns)
    return [column for column in read if types.get(column, "").endswith("s") and not row.get(column)]


def may_read_lists(field: FieldConfig, types: Mapping[str, str]) -> bool:
    """Whether a row may have several keys; a user's function decides that itself."""
    if ":" in field.transform:
        return True
    single = len(field.columns) == 1 and field.transform in ("value", "bucket", "log2")
    # A column that does not exist is another problem, which is reported already.
    return single and types.get(field.columns[0], "int" if field.columns[0] == "at" else "strings").endswith("s")
