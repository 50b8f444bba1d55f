"""A column of a sample as the configuration declares it, whatever the release or configuration that wrote it."""

import pyarrow as pa

from pipeline.errors import InputError


def sample_column(samples: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """[n] the column `field` with its type; nulls if the samples have no such column.

    Raises InputError if the values do not fit the type.
    """
    index = samples.schema.get_field_index(field.name)
    if index < 0:  # written before the column was declared
        return pa.nulls(samples.num_rows, field.type)
    column = samples.column(index)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(
            f"column {field.name} is {column.type} in the samples, the configuration declares {field.type}. "
            "hint: a column that changes its type needs a new name"
        ) from None
